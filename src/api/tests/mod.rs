//! The API as its clients see it: requests in, whole answers out.

mod scaffold;
mod support;
