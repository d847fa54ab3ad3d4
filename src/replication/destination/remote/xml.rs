//! The few XML documents that S3 stores answer with, read whole within limits.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Longest document that is read, in bytes.
pub(super) const BYTES_MAX: usize = 1024 * 1024;
/// Elements inside of each other at most; no answer of S3 has more than six.
const DEPTH_MAX: usize = 16;

/// One element: its local name, its own text, the elements inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// Reads a document; None when it is not one, or too large, too deep, or names entities.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(body).ok()?;
        let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text).trim());
        // A root that holds the document, so that there is always one open.
        let mut open = vec![Self::default()];
        loop {
            let piece = match reader.read_event().ok()? {
                Event::Start(start) => {
                    let name = start.local_name().as_ref().to_owned();
                    open.push(Self { name, ..Self::default() });
                    if open.len() > DEPTH_MAX + 1 {
                        return None;
                    }
                    continue;
                }
                Event::Empty(start) => {
                    let name = start.local_name().as_ref().to_owned();
                    open.last_mut()?.children.push(Self { name, ..Self::default() });
                    continue;
                }
                Event::End(_) => {
                    let ended = open.pop()?;
                    open.last_mut()?.children.push(ended);
                    continue;
                }
                Event::Text(text) => text.xml10_content().into_owned(),
                Event::CData(text) => text.xml10_content().into_owned(),
                Event::GeneralRef(entity) => match entity.resolve_char_ref().ok()? {
                    Some(letter) => letter.to_string(),
                    None => known_entity(&entity.xml10_content())?.to_owned(),
                },
                Event::Decl(_) | Event::Comment(_) => continue,
                Event::DocType(_) | Event::PI(_) => return None,
                Event::Eof => break,
            };
            open.last_mut()?.text.push_str(&piece);
        }
        let document = open.pop()?;
        let is_one = open.is_empty() && document.text.trim().is_empty();
        let mut roots = document.children.into_iter().filter(|_| is_one);
        let root = roots.next()?;
        roots.next().is_none().then_some(root)
    }

    /// The text of the first element inside with this name, without blanks around it; empty when there
    /// is none.
    pub(super) fn text_of(&self, name: &str) -> &str {
        self.all(name).next().map_or("", |child| child.text.trim())
    }

    pub(super) fn all<'e>(&'e self, name: &str) -> impl Iterator<Item = &'e Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

fn known_entity(name: &str) -> Option<&'static str> {
    Some(match name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read_within_limits() {
        let told = Element::parse(
            b"<?xml version=\"1.0\"?>\n<Error xmlns=\"x\"><Code>Slow&#x44;own</Code><a:Message> a &amp; \
              b</a:Message><Empty/><Part><N>1</N></Part><Part><N>2</N></Part></Error>\n",
        )
        .unwrap();
        assert_eq!((told.name.as_str(), told.text_of("Code")), ("Error", "SlowDown"));
        assert_eq!((told.text_of("Message"), told.text_of("Region")), ("a & b", ""));
        let numbers: Vec<_> = told.all("Part").map(|part| part.text_of("N")).collect();
        assert_eq!(numbers, ["1", "2"]);
        for depth in [DEPTH_MAX, DEPTH_MAX + 1] {
            let nested = format!("{}{}", "<b>".repeat(depth), "</b>".repeat(depth));
            assert_eq!(Element::parse(nested.as_bytes()).is_some(), depth == DEPTH_MAX);
        }
        let long = [&b"<a>"[..], &vec![b'x'; BYTES_MAX], b"</a>"].concat();
        for wrong in [
            &b"<!DOCTYPE a [<!ENTITY b \"xx\">]><a>&b;</a>"[..],
            b"",
            b"nothing",
            b"<a>",
            b"<a></b>",
            b"<a/><a/>",
            b"x<a/>",
            b"<a>&b;</a>",
            b"<?pi x?><a/>",
            b"<a>\xff</a>",
            b"<html><body>502",
            &long,
        ] {
            assert_eq!(Element::parse(wrong), None, "{}", String::from_utf8_lossy(wrong).len());
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "[<>/a-b&;!?=\" ]{0,40}") {
            drop(Element::parse(text.as_bytes()));
        }
    }
}
