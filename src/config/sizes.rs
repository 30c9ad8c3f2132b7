//! The sizes at which a node cuts large things into parts, or gives up on a detour.

use super::limits;

/// Those of [`limits`]; tests and the simulation take smaller ones, to meet what lies beyond them with little data. No
/// two nodes need the same: a command has what its maker has put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// [`limits::COMMIT_INLINE`]
    pub commit_inline: usize,
    /// [`limits::PIECE`], which no piece may exceed.
    pub piece: usize,
    /// [`limits::PACK_REVISIONS`]
    pub pack_revisions: usize,
    /// [`limits::INVALIDATIONS`]
    pub invalidations: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            commit_inline: limits::COMMIT_INLINE,
            piece: limits::PIECE,
            pack_revisions: limits::PACK_REVISIONS,
            invalidations: limits::INVALIDATIONS,
        }
    }
}
