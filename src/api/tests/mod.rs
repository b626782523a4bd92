//! The API as its clients see it: requests in, whole answers out.

mod auth;
mod catalog;
mod chat;
mod files;
mod routines;
mod runs;
mod scaffold;
mod support;
mod tenancy;
