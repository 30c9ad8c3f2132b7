//! Packing: removing history before a time, and objects that nothing refers to.

mod step;
