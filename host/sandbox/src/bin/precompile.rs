//! `precompile IN.wasm OUT.cwasm`: what `cargo xtask plugins` turns the bundled plugins into machine code with.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: precompile IN.wasm OUT.cwasm");
        return ExitCode::FAILURE;
    };
    let compile = || -> Result<(), String> {
        let wasm = std::fs::read(&input).map_err(|e| format!("{}: {e}", input.display()))?;
        let compiled = sandbox::Engine::new().and_then(|engine| engine.compile(&wasm)).map_err(|e| e.to_string())?;
        std::fs::write(&output, compiled).map_err(|e| format!("{}: {e}", output.display()))
    };
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
