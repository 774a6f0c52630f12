use crate::{File, Piece};

impl File {
    /// A file of this text or these bytes. `path` is relative, `/`-separated, inside the destination.
    pub fn new(path: impl Into<String>, contents: impl AsRef<[u8]>) -> Self {
        Self::of(path, [Piece::text(contents)])
    }

    /// A file put together from pieces, in order.
    pub fn of(path: impl Into<String>, pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self { path: path.into(), pieces: pieces.into_iter().collect() }
    }
}

impl Piece {
    /// A piece of this text or these bytes.
    pub fn text(contents: impl AsRef<[u8]>) -> Self {
        Self::Bytes(contents.as_ref().to_vec())
    }
}
