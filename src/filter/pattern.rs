//! Event-type patterns, and an index over them so that an event visits only the routes that fit.
//!
//! `order.completed` is exact; `*` stands for one whole segment; `**` comes last and stands for any
//! number of segments, none included: `order.**` fits `order`, `order.created` and `order.item.added`.

use std::collections::HashMap;

use super::explain::Misfit;

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypePattern {
    segments: Vec<Segment>,
    /// Whether it ends in `**`.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exact(Box<str>),
    Any,
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or nothing between two dots.
    #[error("a segment is empty")]
    EmptySegment,
    /// `ord*`.
    #[error("`*` stands for a whole segment only; write `order.*` or `**`")]
    PartialWildcard,
    /// `**.created`.
    #[error("`**` can only come last")]
    OpenNotLast,
    /// A blank or a control character.
    #[error("a segment has a blank or a control character, which no event type has")]
    Character,
}

impl TypePattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut segments = Vec::new();
        let mut open = false;
        for segment in text.split('.') {
            if open {
                return Err(PatternError::OpenNotLast);
            }
            match segment {
                "" => return Err(PatternError::EmptySegment),
                "**" => open = true,
                "*" => segments.push(Segment::Any),
                _ if segment.contains('*') => return Err(PatternError::PartialWildcard),
                _ if segment.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                    return Err(PatternError::Character);
                }
                _ => segments.push(Segment::Exact(segment.into())),
            }
        }
        Ok(Self { segments, open })
    }

    /// Whether an event type fits.
    pub fn matches(&self, event_type: &str) -> bool {
        let mut segments = event_type.split('.');
        let fits = |own: &Segment| match (own, segments.next()) {
            (Segment::Exact(exact), Some(segment)) => **exact == *segment,
            (Segment::Any, Some(_)) => true,
            (_, None) => false,
        };
        self.segments.iter().all(fits) && (self.open || segments.next().is_none())
    }

    /// Whether every event type that `other` fits is one that this pattern fits.
    pub fn covers(&self, other: &Self) -> bool {
        let fits = |(own, others): (&Segment, &Segment)| *own == Segment::Any || own == others;
        let lengths_fit = if self.open {
            other.segments.len() >= self.segments.len()
        } else {
            !other.open && other.segments.len() == self.segments.len()
        };
        lengths_fit && self.segments.iter().zip(&other.segments).all(fits)
    }

    /// The first segment in which it differs from an event type; `None` when it fits.
    pub(super) fn misfit(&self, event_type: &str) -> Option<Misfit> {
        let mut types = event_type.split('.');
        for (number, own) in self.segments.iter().enumerate() {
            let (own, saw) = match (own, types.next()) {
                (Segment::Any, Some(_)) => continue,
                (Segment::Exact(own), Some(saw)) if **own == *saw => continue,
                (Segment::Any, None) => ("*", None),
                (Segment::Exact(own), saw) => (&**own, saw),
            };
            return Some(self.misfit_at(number, Some(own), saw));
        }
        let rest = types.next().filter(|_| !self.open)?;
        Some(self.misfit_at(self.segments.len(), None, Some(rest)))
    }

    fn misfit_at(&self, number: usize, wanted: Option<&str>, saw: Option<&str>) -> Misfit {
        let (wanted, saw) = (wanted.map(str::to_owned), saw.map(str::to_owned));
        Misfit { pattern: self.to_string(), segment: number + 1, wanted, saw }
    }
}

impl std::fmt::Display for TypePattern {
    /// As it was written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Exact(text) => &**text,
            Segment::Any => "*",
        });
        let segments: Vec<_> = segments.chain(self.open.then_some("**")).collect();
        f.write_str(&segments.join("."))
    }
}

/// Patterns as a tree of segments. A look-up walks only the branches that fit.
#[derive(Debug, Default)]
pub struct TypeIndex {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// The operator names the keys, so the hash need not withstand anybody; and it is the same in every process, so that a
    /// look-up takes the same instructions.
    exact: HashMap<Box<str>, Node, foldhash::fast::FixedState>,
    any: Option<Box<Node>>,
    /// Routes with a pattern that ends here.
    ends: Vec<usize>,
    /// Routes with a pattern that has `**` here.
    open: Vec<usize>,
}

impl TypeIndex {
    /// Adds a route's pattern.
    pub fn insert(&mut self, pattern: &TypePattern, route: usize) {
        let mut node = &mut self.root;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Exact(text) => node.exact.entry(text.clone()).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
            };
        }
        if pattern.open { &mut node.open } else { &mut node.ends }.push(route);
    }

    /// The numbers of the routes that fit, ascending, each once.
    pub fn lookup(&self, event_type: &str) -> Vec<usize> {
        let mut routes = Vec::new();
        self.root.collect(Some(event_type), &mut routes);
        routes.sort_unstable();
        routes.dedup();
        routes
    }
}

impl Node {
    /// `rest` is what is left of the type; `None` after its last segment.
    fn collect(&self, rest: Option<&str>, routes: &mut Vec<usize>) {
        routes.extend_from_slice(&self.open);
        let Some(rest) = rest else {
            routes.extend_from_slice(&self.ends);
            return;
        };
        let (segment, rest) = match rest.split_once('.') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(node) = self.exact.get(segment) {
            node.collect(rest, routes);
        }
        if let Some(node) = &self.any {
            node.collect(rest, routes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, event_type: &str) -> bool {
        let mut index = TypeIndex::default();
        index.insert(&TypePattern::parse(pattern).unwrap(), 7);
        let fits = index.lookup(event_type) == [7];
        assert_eq!(TypePattern::parse(pattern).unwrap().matches(event_type), fits, "{pattern} and {event_type}");
        fits
    }

    #[test]
    fn patterns_fit_what_the_design_says() {
        for (pattern, event_type, expected) in [
            ("order.completed", "order.completed", true),
            ("order.completed", "order.created", false),
            ("order.completed", "order.completed.late", false),
            ("order.*", "order.created", true),
            ("order.*", "order", false),
            ("order.*", "order.item.added", false),
            ("*.created", "user.created", true),
            ("*.created", "user.deleted", false),
            ("order.**", "order.created", true),
            ("order.**", "order.item.added", true),
            ("order.**", "order", true),
            ("order.**", "orders.created", false),
            ("order.*.**", "order", false),
            ("**", "anything.at.all", true),
            ("*", "order", true),
            ("*", "order.created", false),
        ] {
            assert_eq!(fits(pattern, event_type), expected, "{pattern} and {event_type}");
            let parsed = TypePattern::parse(pattern).unwrap();
            assert_eq!(parsed.misfit(event_type).is_none(), expected, "{pattern} and {event_type}, explained");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn a_pattern_covers_those_that_fit_nothing_else() {
        for (wide, narrow, expected) in [
            ("**", "order.*", true),
            ("order.*", "order.created", true),
            ("order.**", "order.*", true),
            ("order.**", "order", true),
            ("*.created", "order.created", true),
            ("order.*", "order.*", true),
            ("order.created", "order.*", false),
            ("order.*", "order.**", false),
            ("*.*", "order.created.late", false),
            ("order.*.**", "order.**", false),
            ("user.*", "*.created", false),
        ] {
            let [wide_pattern, narrow_pattern] = [wide, narrow].map(|text| TypePattern::parse(text).unwrap());
            assert_eq!(wide_pattern.covers(&narrow_pattern), expected, "{wide} and {narrow}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", PatternError::EmptySegment),
            ("order.", PatternError::EmptySegment),
            ("order..created", PatternError::EmptySegment),
            ("ord*", PatternError::PartialWildcard),
            ("order.***", PatternError::PartialWildcard),
            ("**.created", PatternError::OpenNotLast),
            ("order. created", PatternError::Character),
        ] {
            assert_eq!(TypePattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_route_with_two_fitting_patterns_is_found_once_and_many_routes_are_not_scanned() {
        let mut index = TypeIndex::default();
        for route in 0..10_000 {
            index.insert(&TypePattern::parse(&format!("tenant{route}.order.*")).unwrap(), route);
            index.insert(&TypePattern::parse(&format!("tenant{route}.**")).unwrap(), route);
        }
        assert_eq!(index.lookup("tenant4711.order.created"), [4711]);
    }
}
