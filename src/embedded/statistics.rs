/// What an embedded resolver has, and what happened since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedStatistics {
    /// Records that have not ended.
    pub records: usize,
    /// The memory they take, in octets.
    pub octets: usize,
    /// The most they may take.
    pub max_octets: usize,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were let in.
    pub accepted: u64,
    /// Connections from outside the trusted networks, which were closed at once.
    pub rejected_peers: u64,
    /// Keys that were asked for.
    pub gets: u64,
    /// Those that were there.
    pub hits: u64,
    /// Writes, whatever became of them.
    pub puts: u64,
    /// Writes that were refused because all memory was taken.
    pub refused: u64,
    /// Records that ended.
    pub expired: u64,
    /// Requests that could not be read, or are not known.
    pub malformed: u64,
    /// Connections that were closed because they speak the binary protocol.
    pub binary: u64,
}
