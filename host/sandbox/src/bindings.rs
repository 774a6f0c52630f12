//! What wasmtime makes of `wit/deps`. The nouns that worlds share are made once, with the output world.

/// The output world.
#[allow(missing_docs)]
pub(crate) mod output {
    wasmtime::component::bindgen!({
        path: [
            "../../wit/deps/types@0.1.0",
            "../../wit/deps/host@0.1.0",
            "../../wit/deps/format@0.1.0",
            "../../wit/deps/output@0.1.0",
        ],
        world: "tbot:output/output-plugin@0.1.0",
        imports: { default: trappable },
        exports: { default: async },
    });
}

/// The format world.
#[allow(missing_docs)]
pub(crate) mod format {
    wasmtime::component::bindgen!({
        path: ["../../wit/deps/types@0.1.0", "../../wit/deps/host@0.1.0", "../../wit/deps/format@0.1.0"],
        world: "tbot:format/format-plugin@0.1.0",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "tbot:types/types@0.1.0": crate::bindings::output::tbot::types::types,
            "tbot:host/log@0.1.0": crate::bindings::output::tbot::host::log,
            "tbot:host/private-key@0.1.0": crate::bindings::output::tbot::host::private_key,
            "tbot:format/material@0.1.0": crate::bindings::output::tbot::format::material,
            "tbot:host/input@0.1.0": crate::bindings::join::tbot::host::input,
        },
    });
}

/// The join world.
#[allow(missing_docs)]
pub(crate) mod join {
    wasmtime::component::bindgen!({
        path: ["../../wit/deps/types@0.1.0", "../../wit/deps/host@0.1.0", "../../wit/deps/join@0.1.0"],
        world: "tbot:join/join-plugin@0.1.0",
        imports: {
            "tbot:host/clock.wait": async | trappable,
            "tbot:host/http.send": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "tbot:types/types@0.1.0": crate::bindings::output::tbot::types::types,
            "tbot:host/log@0.1.0": crate::bindings::output::tbot::host::log,
        },
    });
}
