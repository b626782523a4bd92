//! The API as its clients see it: requests in, whole answers out.

mod abandoned;
mod auth;
mod catalog;
mod chat;
mod files;
mod limits;
mod repeated;
mod routines;
mod runs;
mod scaffold;
mod steps;
mod support;
mod tenancy;
mod usage;
