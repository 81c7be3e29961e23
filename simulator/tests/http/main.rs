//! The simulator over HTTP, as a client meets it, and the program.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod dql;
#[cfg(test)]
mod entities;
#[cfg(test)]
mod events;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod grail;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod ingest;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod oauth;
#[cfg(test)]
mod problems;
#[cfg(test)]
mod program;
#[cfg(test)]
mod releases;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod slo;
#[cfg(test)]
mod steering;
#[cfg(test)]
mod transformations;
