//! The shapes that tell lines apart where colours do not.

use std::fmt;

use super::{Markup, Px};

/// Draws the style's shape around the place, with what the pointer reads there.
///
/// `class` is `m` (full), `o` (hollow) or `k` (small, for crowds).
pub(super) fn draw(
    svg: &mut Markup,
    class: &'static str,
    style: usize,
    (x, y): (f64, f64),
    tip: &str,
) {
    let scale = if class == "k" { 0.65 } else { 1.0 };
    let values: [&dyn fmt::Display; 4] = [&class, &style, &Px(x), &Px(y)];
    svg.put("<path class=\"{} s{}\" d=\"M{} {}", &values);
    for (at, (dx, dy)) in SHAPES[style % SHAPES.len()].iter().enumerate() {
        let step: [&dyn fmt::Display; 2] = [&Px(dx * scale), &Px(dy * scale)];
        svg.put(if at == 0 { "m{} {}" } else { "l{} {}" }, &step);
    }
    match tip {
        "" => svg.raw("z\"/>"),
        _ => svg.put("z\"><title>{}</title></path>", &[&tip]),
    };
}

/// Each from the middle to its first corner, and on from corner to corner.
const SHAPES: [&[(f64, f64)]; 8] = [
    // Octagon: a disc at this size.
    &[
        (-4.0, -1.7),
        (2.3, -2.3),
        (3.4, 0.0),
        (2.3, 2.3),
        (0.0, 3.4),
        (-2.3, 2.3),
        (-3.4, 0.0),
        (-2.3, -2.3),
    ],
    // Square.
    &[(-3.6, -3.6), (7.2, 0.0), (0.0, 7.2), (-7.2, 0.0)],
    // Triangle.
    &[(0.0, -4.6), (4.6, 8.0), (-9.2, 0.0)],
    // Diamond.
    &[(0.0, -5.2), (5.2, 5.2), (-5.2, 5.2), (-5.2, -5.2)],
    // Triangle on its head.
    &[(0.0, 4.6), (4.6, -8.0), (-9.2, 0.0)],
    // Plus.
    &[
        (-1.5, -4.8),
        (3.0, 0.0),
        (0.0, 3.3),
        (3.3, 0.0),
        (0.0, 3.0),
        (-3.3, 0.0),
        (0.0, 3.3),
        (-3.0, 0.0),
        (0.0, -3.3),
        (-3.3, 0.0),
        (0.0, -3.0),
        (3.3, 0.0),
    ],
    // Lying and standing bar.
    &[(-5.2, -2.0), (10.4, 0.0), (0.0, 4.0), (-10.4, 0.0)],
    &[(-2.0, -5.2), (4.0, 0.0), (0.0, 10.4), (-4.0, 0.0)],
];
