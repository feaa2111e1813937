//! Where do the nodes of a graph go on a page, and how is that drawn?
//!
//! In layers from left to right: arrows that lead back are turned for the time being, each node stands one layer right
//! of the last that leads to it, and within a layer nodes are near those that they are joined with.

use std::collections::BTreeSet;
use std::fmt::Write;

/// What is drawn as a box.
#[derive(Clone, Debug, Default)]
pub struct Box {
    /// The text in it.
    pub text: String,
    /// What it belongs to; boxes that belong together have one colour.
    pub group: String,
}

/// An arrow between boxes.
#[derive(Clone, Debug, Default)]
pub struct Arrow {
    /// The place of the box that it comes from.
    pub from: usize,
    /// The place of the box that it leads to.
    pub to: usize,
    /// The text at it.
    pub text: String,
    /// What is shown where one points at it.
    pub title: String,
    /// It is drawn with dashes.
    pub dashed: bool,
}

const HEIGHT: usize = 34;
const GAP: usize = 30;
const BETWEEN: usize = 230;
const CHARACTER: usize = 8;
const MARGIN: usize = 24;
const SWEEPS: usize = 8;
/// Pale colours on which dark text is read well.
const COLOURS: [&str; 8] = ["#dbeafe", "#dcfce7", "#fef3c7", "#fce7f3", "#ede9fe", "#cffafe", "#ffedd5", "#e5e7eb"];

/// A place on the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Place {
    x: usize,
    y: usize,
    width: usize,
}

/// The graph as a picture (SVG).
pub fn svg(boxes: &[Box], arrows: &[Arrow]) -> String {
    let layers = ordered(layers(boxes.len(), arrows), arrows);
    let places = places(boxes, &layers);
    let width = places.iter().map(|place| place.x + place.width).max().unwrap_or(0) + MARGIN;
    let height = places.iter().map(|place| place.y + HEIGHT).max().unwrap_or(0) + 2 * MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <defs><marker id=\"end\" viewBox=\"0 0 10 10\" refX=\"10\" refY=\"5\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto\"><path d=\"M0 0 10 5 0 10z\" fill=\"#374151\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let mut labels = Labels::default();
    for arrow in arrows {
        draw(arrow, &places, &mut labels, &mut text);
    }
    let groups: BTreeSet<&str> = boxes.iter().map(|one| one.group.as_str()).collect();
    for (one, place) in boxes.iter().zip(&places) {
        let group = groups.iter().position(|group| *group == one.group).unwrap_or(0);
        let Place { x, y, width } = *place;
        let _ = writeln!(
            text,
            "<g><title>{group_name}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"{fill}\" \
             stroke=\"#374151\"/><text x=\"{middle}\" y=\"{line}\" text-anchor=\"middle\" fill=\"#111827\">{name}</text></g>",
            group_name = escaped(&one.group),
            fill = COLOURS[group % COLOURS.len()],
            middle = x + width / 2,
            line = y + HEIGHT / 2 + 5,
            name = escaped(&one.text),
        );
    }
    text.push_str(&labels.text);
    text.push_str("</svg>\n");
    text
}

/// The texts of arrows, which lie above everything, and where there are some already.
#[derive(Default)]
struct Labels {
    text: String,
    taken: Vec<(usize, usize, usize)>,
}

impl Labels {
    /// Writes a text near a place, where no other one is.
    fn write(&mut self, arrow: &Arrow, x: usize, y: usize) {
        let width = arrow.text.chars().count() * 6 + 8;
        let mut line = y;
        let meets = |line: usize, taken: &[(usize, usize, usize)]| {
            taken
                .iter()
                .any(|(left, right, at)| at.abs_diff(line) < 16 && x < *right + width / 2 && x + width / 2 > *left)
        };
        while meets(line, &self.taken) {
            line += 16;
        }
        self.taken.push((x.saturating_sub(width / 2), x + width / 2, line));
        let left = x.saturating_sub(width / 2);
        let _ = writeln!(
            self.text,
            "<g><title>{title}</title><rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"15\" fill=\"#ffffff\" \
             fill-opacity=\"0.85\"/><text x=\"{x}\" y=\"{base}\" font-size=\"11\" text-anchor=\"middle\" \
             fill=\"#111827\">{text}</text></g>",
            title = escaped(&arrow.title),
            top = line.saturating_sub(11),
            base = line + 1,
            text = escaped(&arrow.text),
        );
    }
}

fn draw(arrow: &Arrow, places: &[Place], labels: &mut Labels, text: &mut String) {
    let (from, to) = (places[arrow.from], places[arrow.to]);
    let dashes = if arrow.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
    let middle = |place: Place| place.y + HEIGHT / 2;
    let (path, x, y) = if from.x < to.x {
        let (left, right) = (from.x + from.width, to.x);
        let bend = (right - left) / 2;
        let (one, two) = (middle(from), middle(to));
        let path = format!("M{left} {one} C{} {one} {} {two} {right} {two}", left + bend, right - bend);
        (path, left + bend, (one + two) / 2)
    } else {
        // Back, below the boxes.
        let (left, right) = (from.x + from.width / 2, to.x + to.width / 2);
        let (one, two) = (from.y + HEIGHT, to.y + HEIGHT);
        let low = one.max(two) + GAP;
        let path = format!("M{left} {one} C{left} {low} {right} {low} {right} {two}");
        (path, (left + right) / 2, low.saturating_sub(GAP / 4))
    };
    let _ = writeln!(
        text,
        "<path d=\"{path}\" fill=\"none\" stroke=\"#374151\" stroke-width=\"1.2\"{dashes} marker-end=\"url(#end)\">\
         <title>{}</title></path>",
        escaped(&arrow.title)
    );
    labels.write(arrow, x, y);
}

/// The layer of each node.
fn layers(count: usize, arrows: &[Arrow]) -> Vec<Vec<usize>> {
    let forward = without_cycles(count, arrows);
    let mut layer = vec![0_usize; count];
    // A longest path has no more steps than there are nodes.
    for _ in 0..count {
        let mut changed = false;
        for (from, to) in &forward {
            if layer[*to] < layer[*from] + 1 {
                layer[*to] = layer[*from] + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let most = layer.iter().copied().max().unwrap_or(0);
    let mut layers = vec![Vec::new(); most + 1];
    (0..count).for_each(|node| layers[layer[node]].push(node));
    layers
}

/// The arrows as pairs; those that lead back to where the search came by are turned.
fn without_cycles(count: usize, arrows: &[Arrow]) -> BTreeSet<(usize, usize)> {
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut entered = vec![0_usize; count];
    for arrow in arrows.iter().filter(|arrow| arrow.from != arrow.to) {
        after[arrow.from].push(arrow.to);
        entered[arrow.to] += 1;
    }
    let mut roots: Vec<usize> = (0..count).collect();
    roots.sort_by_key(|node| entered[*node]);
    // 0: not seen, 1: on the way, 2: done.
    let mut state = vec![0_u8; count];
    let mut forward = BTreeSet::new();
    for root in roots {
        let mut way = vec![(root, 0_usize)];
        while let Some((node, next)) = way.pop() {
            if next == 0 {
                if state[node] != 0 {
                    continue;
                }
                state[node] = 1;
            }
            match after[node].get(next) {
                None => state[node] = 2,
                Some(to) => {
                    way.push((node, next + 1));
                    let pair = if state[*to] == 1 { (*to, node) } else { (node, *to) };
                    forward.insert(pair);
                    if state[*to] == 0 {
                        way.push((*to, 0));
                    }
                }
            }
        }
    }
    forward
}

/// Within its layer each node goes to the middle of those that it is joined with.
fn ordered(mut layers: Vec<Vec<usize>>, arrows: &[Arrow]) -> Vec<Vec<usize>> {
    for _ in 0..SWEEPS {
        let mut height: Vec<(usize, f64)> = Vec::new();
        for layer in &layers {
            height.extend(layer.iter().enumerate().map(|(at, node)| (*node, at as f64)));
        }
        height.sort_by_key(|(node, _)| *node);
        for layer in &mut layers {
            let middle = |node: usize| {
                let near = arrows.iter().filter_map(|arrow| match (arrow.from == node, arrow.to == node) {
                    (true, false) => Some(height[arrow.to].1),
                    (false, true) => Some(height[arrow.from].1),
                    _ => None,
                });
                let near: Vec<f64> = near.collect();
                if near.is_empty() { height[node].1 } else { near.iter().sum::<f64>() / near.len() as f64 }
            };
            let mut keyed: Vec<(f64, usize)> = layer.iter().map(|node| (middle(*node), *node)).collect();
            keyed.sort_by(|one, two| one.0.total_cmp(&two.0).then(one.1.cmp(&two.1)));
            *layer = keyed.into_iter().map(|(_, node)| node).collect();
        }
    }
    layers
}

fn places(boxes: &[Box], layers: &[Vec<usize>]) -> Vec<Place> {
    let tallest = layers.iter().map(Vec::len).max().unwrap_or(0);
    let mut places = vec![Place::default(); boxes.len()];
    let mut x = MARGIN;
    for layer in layers {
        let widths = layer.iter().map(|node| boxes[*node].text.chars().count() * CHARACTER + 20);
        let width = widths.max().unwrap_or(0);
        let top = MARGIN + (tallest - layer.len()) * (HEIGHT + GAP) / 2;
        for (at, node) in layer.iter().enumerate() {
            places[*node] = Place { x, y: top + at * (HEIGHT + GAP), width };
        }
        x += width + BETWEEN;
    }
    places
}

/// A text within XML. Characters that XML cannot hold are left out.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            _ if one.is_control() => {}
            _ => safe.push(one),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(pairs: &[(usize, usize)]) -> Vec<Arrow> {
        pairs
            .iter()
            .map(|(from, to)| Arrow { from: *from, to: *to, text: "80/TCP".to_owned(), ..Arrow::default() })
            .collect()
    }

    #[test]
    fn each_node_stands_right_of_what_leads_to_it() {
        assert_eq!(layers(4, &arrows(&[(0, 1), (1, 2), (0, 2), (3, 2)])), [vec![0, 3], vec![1], vec![2]]);
        assert_eq!(layers(3, &arrows(&[(0, 1), (1, 2), (2, 0)])).len(), 3, "a circle is cut");
        assert_eq!(layers(2, &arrows(&[(0, 1), (1, 0)])).concat().len(), 2);
    }

    #[test]
    fn boxes_do_not_overlap() {
        let boxes: Vec<Box> = (0..6).map(|n| Box { text: format!("node {n}"), group: "a".to_owned() }).collect();
        let all = arrows(&[(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (5, 4), (4, 0)]);
        let places = places(&boxes, &ordered(layers(6, &all), &all));
        for (at, one) in places.iter().enumerate() {
            for other in &places[at + 1..] {
                let apart =
                    one.x + one.width <= other.x || other.x + other.width <= one.x || one.y.abs_diff(other.y) >= HEIGHT;
                assert!(apart, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn texts_of_arrows_do_not_cover_each_other() {
        let mut labels = Labels::default();
        for arrow in arrows(&[(0, 1), (1, 0), (0, 1)]) {
            labels.write(&arrow, 100, 100);
        }
        let lines: BTreeSet<usize> = labels.taken.iter().map(|(.., line)| *line).collect();
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_picture_is_well_formed_whatever_the_names() {
        let boxes = [Box { text: "a<b&\"c\"".to_owned(), group: "<".to_owned() }, Box::default()];
        let picture = svg(&boxes, &arrows(&[(0, 1), (1, 0)]));
        assert!(picture.contains("a&lt;b&amp;&quot;c&quot;") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<g>").count(), picture.matches("</g>").count());
    }
}
