//! The rules of the catalog, shown on real files.
