//! Machine code is made on one machine and run on others: it must not ask for more than every processor of the architecture has.

mod guest;

use guest::{MEMORY, format, plugin};
use identity::Format;
use sandbox::Engine;

/// Wasmtime writes `<name><2: a switch><on or off>` for every extension of the processor that the code may use.
#[cfg(target_arch = "x86_64")]
#[test]
fn compiled_code_uses_no_extension_of_the_processor_that_made_it() {
    let code = Engine::new().unwrap().compile(&format(MEMORY, guest::FINE)).unwrap();
    for extension in
        ["has_sse41", "has_sse42", "has_popcnt", "has_avx", "has_avx2", "has_bmi1", "has_lzcnt", "has_avx512f"]
    {
        // Its length comes first, so that `has_avx` does not find `has_avx2`.
        let name = [&[extension.len() as u8], extension.as_bytes()].concat();
        let at = code.windows(name.len()).position(|part| part == name).expect(extension) + name.len();
        assert_eq!(code[at..at + 2], [2, 0], "`{extension}` is asked for");
    }
}

/// What newer processors have instructions for works without them.
#[tokio::test]
async fn rounding_and_vectors_work_without_extensions() {
    let engine = Engine::new().unwrap();
    let body = "(if (f64.ne (f64.ceil (f64.convert_i32_u (i32.load (i32.const 0)))) (f64.const 0)) (then unreachable))
        (if (i32.ne (i32.popcnt (local.get 1)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i8x16.extract_lane_s 3 (i8x16.swizzle (i8x16.splat (local.get 1)) (i8x16.splat (i32.const 1))))
            (local.get 1)) (then unreachable))
        (i32.const 16)";
    let plugin = plugin(&engine, "old", &format(MEMORY, body)).await.unwrap();
    assert!(plugin.files("{}", None).await.unwrap().is_empty());
}
