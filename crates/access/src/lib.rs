//! Who may do what: certificates, tokens, authorisation.
