//! The largest elements of an output, as Triton's classification extension gives them: `value:index` or
//! `value:index:label`, largest first.

use crate::base::{Datatype, Tensor};

/// The `classes` largest elements of each batch item. A tensor of one dimension is one item; of more, the first
/// dimension is the batch. None for an output that holds no numbers.
pub(super) fn classify(output: &Tensor, classes: usize, labels: &[String]) -> Option<Tensor> {
    if output.datatype() == Datatype::Bytes {
        return None;
    }
    let values = output.to_numbers()?;
    let batch = if output.shape().len() > 1 { output.shape()[0] } else { 1 };
    let width = values.len().checked_div(batch).unwrap_or(0);
    let kept = classes.min(width);
    let mut texts = Vec::with_capacity(batch * kept);
    for item in 0..batch {
        let values = &values[item * width..(item + 1) * width];
        let mut order: Vec<usize> = (0..width).collect();
        // Nan is the smallest: it is no class that anybody means. Equal values stay in their order.
        let rank = |at: usize| if values[at].is_nan() { f64::NEG_INFINITY } else { values[at] };
        let before = |&a: &usize, &b: &usize| rank(b).total_cmp(&rank(a)).then(a.cmp(&b));
        // Only what is kept needs an order.
        if 0 < kept && kept < width {
            order.select_nth_unstable_by(kept - 1, before);
        }
        order[..kept].sort_unstable_by(before);
        texts.extend(order[..kept].iter().map(|&at| match labels.get(at) {
            Some(label) => format!("{:.6}:{at}:{label}", values[at]),
            None => format!("{:.6}:{at}", values[at]),
        }));
    }
    let shape: &[usize] = if output.shape().len() > 1 { &[batch, kept] } else { &[kept] };
    Tensor::of_texts(shape, texts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tensor: &Tensor) -> Vec<String> {
        tensor.texts().unwrap().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_largest_come_first_for_each_item_of_the_batch() {
        let scores = Tensor::new([2, 3], vec![0.1_f32, 0.7, 0.2, 5.0, -1.0, 5.0]).unwrap();
        let labels = ["ok".to_owned(), "worn".to_owned()];
        let top = classify(&scores, 2, &labels).unwrap();
        assert_eq!(top.shape(), [2, 2]);
        assert_eq!(texts(&top), ["0.700000:1:worn", "0.200000:2", "5.000000:0:ok", "5.000000:2"]);
    }

    #[test]
    fn a_few_of_many_are_those_that_sorting_all_would_give() {
        let values: Vec<f32> = (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 22) as f32).collect();
        let scores = Tensor::new([values.len()], values).unwrap();
        let all = texts(&classify(&scores, 5000, &[]).unwrap());
        for kept in [1, 2, 17, 4999] {
            assert_eq!(texts(&classify(&scores, kept, &[]).unwrap()), all[..kept], "{kept}");
        }
    }

    #[test]
    fn more_classes_than_there_are_give_all_and_nan_comes_last() {
        let scores = Tensor::new([3], vec![f32::NAN, 1.0, 2.0]).unwrap();
        let all = classify(&scores, 10, &[]).unwrap();
        assert_eq!(all.shape(), [3]);
        assert_eq!(texts(&all), ["2.000000:2", "1.000000:1", "NaN:0"]);
        assert!(classify(&Tensor::of_texts([1], ["a"]).unwrap(), 1, &[]).is_none());
        assert_eq!(classify(&Tensor::new([0, 3], Vec::<f32>::new()).unwrap(), 1, &[]).unwrap().shape(), [0, 0]);
    }
}
