//! The Dynatrace client over HTTP against a server that answers from a script and counts: a missing or extra call fails.

#[cfg(test)]
mod credentials;
#[cfg(test)]
mod events;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod grail;
#[cfg(test)]
mod instances;
#[cfg(test)]
mod joint;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod packs;
#[cfg(test)]
mod queries;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod series;
#[cfg(test)]
mod server;
#[cfg(test)]
mod services;
#[cfg(test)]
mod surroundings;
#[cfg(test)]
mod taking;
#[cfg(test)]
mod transport;
