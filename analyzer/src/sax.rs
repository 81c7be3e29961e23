//! Symbolic Aggregate approXimation: series to words (Lin, Keogh, Lonardi, Chiu 2003; Lin, Keogh, Wei, Lonardi 2007).

use crate::maths::normal_quantile;

/// Largest alphabet: letters are written `a` to `z`.
pub const MAX_ALPHABET_SIZE: usize = 26;

/// Below this standard deviation a series counts as constant and is z-normalised to zeros
/// (Lin et al. 2007, section 3.1).
pub const FLAT_SIGMA: f64 = 1e-10;

/// Why a word cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SaxError {
    /// Too few or too many letters.
    #[error("alphabet_size: is {0}, give 2 to {MAX_ALPHABET_SIZE}")]
    AlphabetSize(usize),
    /// Breakpoints out of order or not finite.
    #[error("breakpoints: {0:?} are not finite and strictly ascending")]
    Breakpoints(Vec<f64>),
    /// No or too many segments.
    #[error("segments: is {segments}, give 1 to {samples}, the number of samples")]
    Segments {
        /// What was asked for.
        segments: usize,
        /// What there is.
        samples: usize,
    },
    /// Words that cannot be compared.
    #[error("words: lengths {0} and {1} or letters do not fit together; make both with the same breakpoints")]
    Words(usize, usize),
}

/// Shifts and scales to mean 0 and standard deviation 1 (population); a constant series becomes zeros.
#[must_use]
pub fn z_normalize(series: &[f64]) -> Vec<f64> {
    let n = series.len() as f64;
    let mean = series.iter().sum::<f64>() / n;
    let variance = series.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let sigma = variance.sqrt();
    if sigma < FLAT_SIGMA {
        return vec![0.0; series.len()];
    }
    series.iter().map(|v| (v - mean) / sigma).collect()
}

/// Piecewise Aggregate Approximation: the means of `segments` equal pieces. Where the length does not divide,
/// a sample on a border counts to both sides by its share.
///
/// # Errors
/// With no segment, or more segments than samples.
pub fn paa(series: &[f64], segments: usize) -> Result<Vec<f64>, SaxError> {
    let n = series.len();
    if segments == 0 || segments > n {
        return Err(SaxError::Segments { segments, samples: n });
    }
    if n.is_multiple_of(segments) {
        let size = n / segments;
        return Ok(series.chunks_exact(size).map(|piece| piece.iter().sum::<f64>() / size as f64).collect());
    }
    // In units of 1/segments of a sample: sample i covers [i * segments, (i + 1) * segments), segment j [j * n, (j + 1) * n).
    let mean = |j: usize| {
        let (from, to) = (j * n, (j + 1) * n);
        let share = |i: usize| ((i + 1) * segments).min(to).saturating_sub((i * segments).max(from));
        let pieces = (from / segments)..to.div_ceil(segments);
        pieces.map(|i| series[i] * share(i) as f64).sum::<f64>() / n as f64
    };
    Ok((0..segments).map(mean).collect())
}

/// Where one letter ends and the next begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Breakpoints(Vec<f64>);

impl Breakpoints {
    /// Breakpoints that make every letter equally likely under a standard normal.
    ///
    /// # Errors
    /// For fewer than 2 or more than 26 letters.
    pub fn equiprobable(alphabet_size: usize) -> Result<Self, SaxError> {
        if !(2..=MAX_ALPHABET_SIZE).contains(&alphabet_size) {
            return Err(SaxError::AlphabetSize(alphabet_size));
        }
        let quantile = |i: usize| normal_quantile(i as f64 / alphabet_size as f64);
        Ok(Self((1..alphabet_size).map(quantile).collect()))
    }

    /// Breakpoints of one's own, e.g. with letters far out where deviations matter.
    ///
    /// # Errors
    /// Unless there are 1 to 25, finite and strictly ascending.
    pub fn custom(breakpoints: Vec<f64>) -> Result<Self, SaxError> {
        if !(1..MAX_ALPHABET_SIZE).contains(&breakpoints.len()) {
            return Err(SaxError::AlphabetSize(breakpoints.len() + 1));
        }
        let ascending = breakpoints.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || !breakpoints.iter().all(|b| b.is_finite()) {
            return Err(SaxError::Breakpoints(breakpoints));
        }
        Ok(Self(breakpoints))
    }

    /// The breakpoints, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// How many letters there are.
    #[must_use]
    pub fn alphabet_size(&self) -> usize {
        self.0.len() + 1
    }

    /// The letter of a value, 0 for the lowest. A value on a breakpoint belongs to the letter above it.
    #[must_use]
    pub fn letter(&self, value: f64) -> usize {
        self.0.iter().map(|b| usize::from(*b <= value)).sum()
    }

    /// The word of a series that is normalised and aggregated already.
    #[must_use]
    pub fn word(&self, values: &[f64]) -> Word {
        Word(values.iter().map(|v| self.letter(*v) as u8).collect())
    }

    /// Lower bound of the Euclidean distance between the z-normalised series of length `samples`
    /// behind two words (Lin et al. 2003, equation 5).
    ///
    /// # Errors
    /// Where the words differ in length or have letters outside of this alphabet.
    pub fn mindist(&self, a: &Word, b: &Word, samples: usize) -> Result<f64, SaxError> {
        let in_alphabet = |word: &Word| word.0.iter().all(|l| usize::from(*l) < self.alphabet_size());
        if a.0.len() != b.0.len() || a.0.is_empty() || !in_alphabet(a) || !in_alphabet(b) {
            return Err(SaxError::Words(a.0.len(), b.0.len()));
        }
        let squares = a.0.iter().zip(&b.0).map(|(x, y)| self.letter_distance(*x, *y));
        Ok((samples as f64 / a.0.len() as f64 * squares.map(|d| d * d).sum::<f64>()).sqrt())
    }

    /// The gap between two letters, 0 for the same or for neighbours (Lin et al. 2003, equation 6).
    fn letter_distance(&self, x: u8, y: u8) -> f64 {
        let (low, high) = (usize::from(x.min(y)), usize::from(x.max(y)));
        if high - low <= 1 { 0.0 } else { self.0[high - 1] - self.0[low] }
    }
}

/// A series as letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(Vec<u8>);

impl Word {
    /// The letters as numbers, 0 for the lowest.
    #[must_use]
    pub fn letters(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(b'a' + letter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn breakpoints_are_those_of_the_paper() {
        // Lin et al. 2003, table 3.
        let expected: [(usize, &[f64]); 4] = [
            (3, &[-0.43, 0.43]),
            (4, &[-0.67, 0.0, 0.67]),
            (8, &[-1.15, -0.67, -0.32, 0.0, 0.32, 0.67, 1.15]),
            (10, &[-1.28, -0.84, -0.52, -0.25, 0.0, 0.25, 0.52, 0.84, 1.28]),
        ];
        for (size, table) in expected {
            let breakpoints = Breakpoints::equiprobable(size).unwrap();
            assert_eq!(breakpoints.as_slice().len(), table.len());
            for (ours, theirs) in breakpoints.as_slice().iter().zip(table) {
                assert!((ours - theirs).abs() < 0.006, "{ours} {theirs}");
            }
        }
    }

    #[test]
    fn a_series_becomes_its_word() {
        // By hand: mean 0.0167, sd 1.158; segment means 0.417, -0.403, -0.014; breakpoints -0.67, 0, 0.67.
        let series = z_normalize(&[-1.0, 2.0, 0.1, -1.0, 1.0, -1.0]);
        let word = Breakpoints::equiprobable(4).unwrap().word(&paa(&series, 3).unwrap());
        assert_eq!(word.to_string(), "cbb");
        assert_eq!(word.letters(), [2, 1, 1]);
    }

    #[test]
    fn segments_share_samples_on_their_borders() {
        assert_eq!(paa(&[1.0, 2.0, 3.0, 4.0], 2).unwrap(), [1.5, 3.5]);
        let uneven = paa(&[1.0, 2.0, 3.0], 2).unwrap();
        assert!((uneven[0] - 4.0 / 3.0).abs() < 1e-12 && (uneven[1] - 8.0 / 3.0).abs() < 1e-12);
        assert_eq!(paa(&[7.0], 1).unwrap(), [7.0]);
    }

    #[test]
    fn a_constant_series_has_no_shape() {
        assert_eq!(z_normalize(&[3.0; 4]), [0.0; 4]);
        assert!(z_normalize(&[]).is_empty());
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        let text = |e: SaxError| e.to_string();
        assert_eq!(text(Breakpoints::equiprobable(1).unwrap_err()), "alphabet_size: is 1, give 2 to 26");
        assert!(text(Breakpoints::custom(vec![1.0, 1.0]).unwrap_err()).contains("strictly ascending"));
        assert_eq!(text(paa(&[1.0], 2).unwrap_err()), "segments: is 2, give 1 to 1, the number of samples");
        let four = Breakpoints::equiprobable(4).unwrap();
        assert!(four.mindist(&Word(vec![0]), &Word(vec![4]), 8).is_err());
        assert!(four.mindist(&Word(vec![0]), &Word(vec![0, 1]), 8).is_err());
    }

    proptest! {
        #[test]
        fn mindist_never_exceeds_euclid(
            pair in prop::collection::vec((-9.0..9.0_f64, -9.0..9.0_f64), 4..48),
            alphabet in 2..=MAX_ALPHABET_SIZE,
            segments in 1..5_usize,
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) = pair.into_iter().unzip();
            let (a, b) = (z_normalize(&a), z_normalize(&b));
            let euclid = a.iter().zip(&b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt();
            let breakpoints = Breakpoints::equiprobable(alphabet).unwrap();
            let word = |series: &[f64]| breakpoints.word(&paa(series, segments).unwrap());
            let bound = breakpoints.mindist(&word(&a), &word(&b), a.len()).unwrap();
            prop_assert!(bound <= euclid + 1e-9, "{} {}", bound, euclid);
        }

        #[test]
        fn letters_follow_the_values(a in -9.0..9.0_f64, b in -9.0..9.0_f64, size in 2..=MAX_ALPHABET_SIZE) {
            let breakpoints = Breakpoints::equiprobable(size).unwrap();
            prop_assert!(a > b || breakpoints.letter(a) <= breakpoints.letter(b));
        }
    }
}
