//! How far apart hosts of the same version lie, for a host whose own place among them is not known.

/// Hosts of one version are believed to differ by this much (ln), with the weight of so many hosts.
const PRIOR: (f64, f64) = (0.05, 2.0);

/// The variance between hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    sd: f64,
    hosts: f64,
}

impl Spread {
    /// From the levels of hosts (ln): the fewer, the more the belief counts.
    pub(super) fn of(levels: &[f64]) -> Self {
        let known: Vec<f64> = levels.iter().copied().filter(|level| level.is_finite()).collect();
        let n = known.len() as f64;
        let mean = known.iter().sum::<f64>() / n.max(1.0);
        let squares: f64 = known.iter().map(|level| (level - mean) * (level - mean)).sum();
        let variance = (squares + PRIOR.1 * PRIOR.0 * PRIOR.0) / ((n - 1.0).max(0.0) + PRIOR.1);
        Self { sd: variance.sqrt(), hosts: n.max(1.0) }
    }

    /// Standard deviation of one more host's level around the mean of the known ones.
    pub(super) fn of_one(self) -> f64 {
        self.of_mean(1)
    }

    /// The same of the mean of so many more hosts.
    pub(super) fn of_mean(self, hosts: usize) -> f64 {
        self.sd * (1.0 / hosts.max(1) as f64 + 1.0 / self.hosts).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_hosts_leave_more_doubt_than_many() {
        let levels =
            |n: usize| -> Vec<f64> { (0..n).map(|i| if i % 2 == 0 { 0.05 } else { -0.05 }).collect() };
        let of = |n: usize| Spread::of(&levels(n));
        assert!(of(1).of_one() > of(4).of_one() && of(4).of_one() > of(20).of_one());
        assert!((of(1).of_one() - 0.05 * 2.0_f64.sqrt()).abs() < 1e-12, "one host: the belief alone");
        assert!(of(8).of_mean(4) < 0.6 * of(8).of_one());
        assert!(Spread::of(&[0.3, -0.3, 0.3, -0.3]).of_one() > 0.2);
        assert_eq!(Spread::of(&[]).of_one(), Spread::of(&[f64::NAN]).of_one());
    }
}
