use super::super::{
    AdapterWeights, Adept, LowRank, Matrix, Update, tensor::MatrixError, weights::WeightsError,
};

fn zeros(rows: usize, cols: usize) -> Matrix {
    Matrix::new(rows, cols, vec![0.0; rows * cols]).unwrap()
}

#[test]
fn a_matrix_is_full_and_finite() {
    let matrix = Matrix::new(2, 3, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    assert_eq!((matrix.shape(), matrix.row(1)), ((2, 3), &[3.0, 4.0, 5.0][..]));
    assert_eq!(Matrix::new(2, 3, vec![0.0; 5]), Err(MatrixError::Length { rows: 2, cols: 3, found: 5 }));
    assert_eq!(
        Matrix::new(usize::MAX, 2, vec![]),
        Err(MatrixError::Length { rows: usize::MAX, cols: 2, found: 0 })
    );
    assert_eq!(
        Matrix::new(2, 2, vec![0.0, 0.0, 0.0, f32::INFINITY]),
        Err(MatrixError::NotFinite { row: 1, col: 1, value: f32::INFINITY })
    );
    assert!(matches!(
        Matrix::new(1, 2, vec![f32::NAN, 0.0]),
        Err(MatrixError::NotFinite { row: 0, col: 0, .. })
    ));
}

#[test]
fn weights_know_their_sizes() {
    let pair = LowRank::new(zeros(256, 30), zeros(30, 768), 1.5).unwrap();
    let weights = AdapterWeights::new(zeros(60, 768), Some(pair)).unwrap();
    assert_eq!((weights.prompt_length(), weights.rank(), weights.hidden()), (60, 30, 768));
    assert_eq!(weights.max_length(), Some(256));
    assert_eq!(weights.parameters(), 60 * 768 + (256 + 768) * 30);
    assert_eq!(weights.bytes(), 4 * 76_800);

    let plain = AdapterWeights::new(zeros(100, 768), Update::None).unwrap();
    assert_eq!((plain.rank(), plain.max_length(), plain.parameters()), (0, None, 76_800));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let pair = || LowRank::new(zeros(5, 3), zeros(3, 4), 1.0).unwrap();
    assert!(AdapterWeights::new(Matrix::empty(4), Some(pair())).is_ok());
    assert_eq!(AdapterWeights::new(Matrix::empty(4), Update::None), Err(WeightsError::Nothing));
    assert_eq!(
        AdapterWeights::new(zeros(2, 5), Some(pair())),
        Err(WeightsError::Hidden { prompt: 5, low_rank: 4 })
    );
    assert_eq!(LowRank::new(zeros(5, 3), zeros(2, 4), 1.0), Err(WeightsError::Rank { a: 3, b: 2 }));
    assert_eq!(LowRank::new(zeros(5, 0), zeros(0, 4), 1.0), Err(WeightsError::Empty { s: 5, r: 0, d: 4 }));
    assert!(matches!(LowRank::new(zeros(5, 3), zeros(3, 4), f32::NAN), Err(WeightsError::Scale(_))));
    let error = Adept::new(zeros(4, 3), zeros(1, 3), zeros(3, 4), zeros(1, 3)).unwrap_err().to_string();
    assert_eq!(
        error,
        "ADePT's A, a, B and b are (d, r), (r), (r, d) and (d): found A (4, 3), a (3), B (3, 4) and b (3)"
    );
}
