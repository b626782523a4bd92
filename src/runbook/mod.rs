//! The runbook document: front matter, template variables.
