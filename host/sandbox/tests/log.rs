//! What a guest says, by the log's own function and by WASI's standard output: cut, and never more than its share.

mod guest;

use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;

use guest::{FINE, MEMORY, component, format, plugin};
use identity::Format;
use sandbox::Engine;

/// The lines that a call of `files` leaves in the log.
async fn said(wasm: &[u8]) -> Vec<String> {
    let mut file = tempfile::tempfile().unwrap();
    let writer: Arc<File> = Arc::new(file.try_clone().unwrap());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let engine = Engine::new().unwrap();
    let talking = plugin(&engine, "talking", wasm).await.unwrap();
    let _ = talking.files("{}", None).await;
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.contains("plugin=talking"));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_the_call_goes_on() {
    let import = r#"(import "tbot:host/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let body = "(local $n i32)
        (loop $more
            (call $log (i32.const 1) (i32.const 64) (i32.const 100))
            (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000))))
        (i32.const 16)";
    let lines = said(&format(&format!("{import} {MEMORY}"), body)).await;
    assert_eq!(lines.len(), 201);
    assert!(lines[200].contains("More than 200 lines"), "{}", lines[200]);
}

#[tokio::test]
async fn a_line_is_escaped_and_cut() {
    let import = r#"(import "tbot:host/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let data = r#"(data (i32.const 64) "first\0a\1b[31msecond\e2\80\ae")"#;
    let body = "(call $log (i32.const 1) (i32.const 64) (i32.const 20))
        (call $log (i32.const 1) (i32.const 65600) (i32.const 5000)) (i32.const 16)";
    let lines = said(&format(&format!("{import} {MEMORY} {data}"), body)).await;
    assert!(lines[0].contains(r"first\n\u{1b}[31msecond\u{202e}"), "{}", lines[0]);
    assert!(lines.len() == 2 && lines[1].len() < 1200, "{} bytes", lines[1].len());
}

/// A part of WASI 0.2, as far as a guest that prints needs it.
fn printing(body: &str) -> Vec<u8> {
    let wit = "
        world guest { include tbot:format/format-plugin@0.1.0; import wasi:cli/stderr@0.2.0; }
        package wasi:io@0.2.0 {
            interface error { resource error; }
            interface streams {
                use error.{error};
                variant stream-error { last-operation-failed(error), closed }
                resource output-stream {
                    blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                }
            }
        }
        package wasi:cli@0.2.0 {
            interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
        }";
    let head = r#"(import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
        (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
            (func $write (param i32 i32 i32 i32)))
        (memory (export "memory") 4) (data (i32.const 1024) "Traceback:\0a  line 1\0aunfinished")"#;
    let exports = format!(
        r#"(func (export "tbot:format/format@0.1.0#describe") (result i32) {FINE})
           (func (export "tbot:format/format@0.1.0#files") (param i32 i32 i32 i32 i32) (result i32) (local $n i32) {body})
           (func (export "tbot:format/format@0.1.0#render") (param i32) (result i32) {FINE})"#
    );
    component("format", wit, head, &exports)
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_guest_prints_is_in_the_log_also_where_it_crashes() {
    let print = "(call $write (call $stderr) (i32.const 1024) (i32.const 30) (i32.const 512)) unreachable";
    let lines = said(&printing(print)).await;
    let expected = ["Traceback:", "  line 1", "unfinished"];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    assert!(lines.iter().zip(expected).all(|(line, words)| line.contains(words)), "{lines:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn printing_without_end_is_cut_as_logging_is() {
    let print = "(local.set $n (i32.const 0))
        (loop $more
            (call $write (call $stderr) (i32.const 1024) (i32.const 11) (i32.const 512))
            (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 300))))
        (i32.const 16)";
    assert_eq!(said(&printing(print)).await.len(), 201);
    // One line without an end: four times four KiB.
    let print = print.replace("(i32.const 1024) (i32.const 11)", "(i32.const 65600) (i32.const 4096)");
    let lines = said(&printing(&print.replace("300", "4"))).await;
    assert!(lines.len() == 1 && lines[0].len() < 7000, "{} lines", lines.len());
}
