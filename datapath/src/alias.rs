//! Alias tables: a weighted choice with one random number, whatever the number of entries.
//!
//! M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE Transactions on
//! Software Engineering 17(9), 1991. In integers, so that no weight is lost to rounding.

/// One full draw of a slot.
const WHOLE: u128 = 1 << 32;

/// What a slot does with its draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Share that its own entry keeps, of 2³².
    pub(crate) threshold: u32,
    /// Entry that takes the rest.
    pub(crate) alias: u32,
}

/// A slot for each of the weights, which are ≥ 1.
pub(crate) fn table(weights: impl ExactSizeIterator<Item = u64> + Clone) -> Vec<Slot> {
    let slots = weights.len() as u128;
    let total: u128 = weights.clone().map(u128::from).sum();
    let mut table: Vec<Slot> =
        (0_u32..).zip(weights.clone()).map(|(alias, _)| Slot { threshold: u32::MAX, alias }).collect();

    // A slot of exactly the mean weight holds `total`; the light ones are filled up from the heavy ones.
    let (mut light, mut heavy) = (Vec::new(), Vec::new());
    for (index, weight) in weights.enumerate() {
        let share = u128::from(weight) * slots;
        if share < total { light.push((index, share)) } else { heavy.push((index, share)) }
    }
    while let (Some((index, share)), Some((donor, left))) = (light.pop(), heavy.pop()) {
        if let Some(slot) = table.get_mut(index) {
            slot.threshold = threshold(share, total);
            slot.alias = u32::try_from(donor).unwrap_or(u32::MAX);
        }
        let left = left - (total - share);
        if left < total { light.push((donor, left)) } else { heavy.push((donor, left)) }
    }
    table
}

/// `share` of `total` in 2³² parts. Below 2⁹⁶ nothing is lost; above, less than one part.
fn threshold(share: u128, total: u128) -> u32 {
    let excess = (128 - total.leading_zeros()).saturating_sub(96);
    let part = ((share >> excess) * WHOLE).checked_div(total >> excess).unwrap_or(0);
    u32::try_from(part).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The share of all draws that each entry gets, by the rule that the kernel program follows.
    fn shares(weights: &[u64]) -> Vec<f64> {
        let table = table(weights.iter().copied());
        let slots = f64::from(u32::try_from(table.len()).unwrap());
        let mut shares = vec![0.0; table.len()];
        for (index, slot) in table.iter().enumerate() {
            let own = f64::from(slot.threshold) / f64::from(u32::MAX);
            shares[index] += own / slots;
            shares[slot.alias as usize] += (1.0 - own) / slots;
        }
        shares
    }

    proptest! {
        #[test]
        #[expect(clippy::cast_precision_loss, reason = "the bound is wider than what is lost")]
        fn every_entry_gets_its_share_of_the_weight(weights in prop::collection::vec(1_u64.., 1..200)) {
            let total: f64 = weights.iter().map(|&w| w as f64).sum();
            for (share, weight) in shares(&weights).into_iter().zip(&weights) {
                prop_assert!((share - *weight as f64 / total).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn one_entry_takes_everything() {
        assert_eq!(shares(&[7]), [1.0]);
    }

    #[test]
    fn the_extremes_of_weight_do_not_overflow() {
        let shares = shares(&[u64::MAX, 1, u64::MAX]);
        assert!((shares[0] - 0.5).abs() < 1e-6 && shares[1] < 1e-6 && (shares[2] - 0.5).abs() < 1e-6);
    }
}
