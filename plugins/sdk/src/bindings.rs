//! What wit-bindgen makes of `wit/`. The nouns that worlds share are made once, with the output world.

pub mod output {
    wit_bindgen::generate!({
        path: [
            "../../wit/deps/types@0.1.0",
            "../../wit/deps/host@0.1.0",
            "../../wit/deps/format@0.1.0",
            "../../wit/deps/output@0.1.0",
        ],
        world: "tbot:output/output-plugin@0.1.0",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_output_world",
        default_bindings_module: "tbot_sdk::bindings::output",
        runtime_path: "::tbot_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

pub mod format {
    wit_bindgen::generate!({
        path: ["../../wit/deps/types@0.1.0", "../../wit/deps/host@0.1.0", "../../wit/deps/format@0.1.0"],
        world: "tbot:format/format-plugin@0.1.0",
        with: {
            "tbot:types/types@0.1.0": crate::bindings::output::tbot::types::types,
            "tbot:host/log@0.1.0": crate::bindings::output::tbot::host::log,
            "tbot:host/private-key@0.1.0": crate::bindings::output::tbot::host::private_key,
            "tbot:format/material@0.1.0": crate::bindings::output::tbot::format::material,
            "tbot:host/input@0.1.0": crate::bindings::join::tbot::host::input,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_format_world",
        default_bindings_module: "tbot_sdk::bindings::format",
        runtime_path: "::tbot_sdk::wit_bindgen::rt",
    });
}

pub mod join {
    wit_bindgen::generate!({
        path: ["../../wit/deps/types@0.1.0", "../../wit/deps/host@0.1.0", "../../wit/deps/join@0.1.0"],
        world: "tbot:join/join-plugin@0.1.0",
        with: {
            "tbot:types/types@0.1.0": crate::bindings::output::tbot::types::types,
            "tbot:host/log@0.1.0": crate::bindings::output::tbot::host::log,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_join_world",
        default_bindings_module: "tbot_sdk::bindings::join",
        runtime_path: "::tbot_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq],
    });
}
