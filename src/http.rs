//! HTTP/1.1 on `std::net`.
