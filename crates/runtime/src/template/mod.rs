//! Templates: machines that have booted before, from which sandboxes of the same
//! shape go on.
//!
//! Every guest of one shape boots the same way up to the moment its agent serves, and
//! that is most of what starting a sandbox costs. So one machine boots once, without
//! anything that belongs to a sandbox, and is saved; later ones get a copy of its
//! memory, the devices of their own sandbox, fresh randomness and the time.
//!
//! ```text
//!  templates/                        root's alone
//!    <digest of the shape>/          whole since the rename that put it there
//!      manifest.json, memory (sparse), state
//!    <digest of the shape>.failed    why there is none; believed for a while
//!    build/                          one being made, or what a killed maker left
//!    lock                            held by the one maker
//! ```
//!
//! [`Shape`] says which machines are alike, [`Store`] keeps templates, [`make`] makes
//! one in a process of its own, outside of any pod. Nothing depends on a template: one
//! that is missing, damaged or refused by QEMU costs an ordinary boot.

mod make;
mod memory;
mod shape;
mod store;

pub use self::{
    make::{MakeError, Maker, Order, make},
    shape::{NoShape, Shape},
    store::{Look, Store, Template},
};
