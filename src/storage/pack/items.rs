//! The items on a pickle's stack, as far as they may become a persistent id.

/// An item on the stack of the scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Mark,
    /// A string of eight bytes, or of eight ASCII characters.
    Oid([u8; 8]),
    /// A tuple that begins with such a string.
    Tuple([u8; 8]),
    List,
    Other,
}

/// A step of scanning a pickle; the error says what is wrong with the record.
pub type Scanned<T> = Result<T, &'static str>;

/// The item for a string of bytes.
pub fn of_bytes(bytes: &[u8]) -> Item {
    bytes.try_into().map_or(Item::Other, Item::Oid)
}

/// The item for a text. Python 2 wrote strings of bytes as texts where all bytes were ASCII.
pub fn of_text(text: &[u8]) -> Item {
    if text.is_ascii() { of_bytes(text) } else { Item::Other }
}

/// The item for a tuple that begins with `first`.
pub fn tuple(first: Option<Item>) -> Item {
    match first {
        Some(Item::Oid(oid)) => Item::Tuple(oid),
        _ => Item::Other,
    }
}
