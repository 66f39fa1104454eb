//! Scheduler and controllers: they speak only to the API.
