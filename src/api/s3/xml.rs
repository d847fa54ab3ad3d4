//! XML of the S3 API: bodies read whole into elements, within limits, and answers written in order.
//!
//! No document type, no entities but the five of XML, no processing instructions: nothing that could
//! make a small body large or name anything outside of it.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::partial_escape;
use quick_xml::events::Event;

use crate::api::s3::error::{S3Refusal, malformed_xml};

/// Elements inside of each other at most (ours; no body of S3 has more than six).
const DEPTH_MAX: usize = 16;
/// Elements of a document at most (ours; a thousand keys or rules have a few thousand).
const ELEMENTS_MAX: usize = 10_000;
/// Attributes are none of S3's business but for the namespace; more bytes of them than this are not
/// looked through.
const ATTRIBUTES_BYTES_MAX: usize = 4096;
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// One element: its local name, its own text, the elements inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    text: String,
    pub(crate) children: Vec<Element>,
}

impl Element {
    /// Reads a document whose root must be one of `roots`. The body was limited before.
    pub(crate) fn parse(body: &[u8], roots: &[&str]) -> Result<Self, S3Refusal> {
        Self::parse_long(body, roots, ELEMENTS_MAX)
    }

    /// Reads a document that may have so many elements.
    pub(crate) fn parse_long(
        body: &[u8],
        roots: &[&str],
        elements_max: usize,
    ) -> Result<Self, S3Refusal> {
        let text = std::str::from_utf8(body).map_err(|_| malformed_xml())?;
        let root = Self::read(text.strip_prefix('\u{feff}').unwrap_or(text), elements_max)?;
        if roots.contains(&root.name.as_str()) { Ok(root) } else { Err(malformed_xml()) }
    }

    fn read(text: &str, elements_max: usize) -> Result<Self, S3Refusal> {
        let mut reader = Reader::from_str(text);
        let mut elements = 0;
        // The elements that are open, the outermost first.
        let mut open: Vec<Self> = Vec::new();
        let mut root = None;
        loop {
            // Each takes more memory than its text does.
            if elements > elements_max {
                return Err(malformed_xml());
            }
            match reader.read_event().map_err(|_| malformed_xml())? {
                Event::Start(start) => {
                    if root.is_some() || open.len() >= DEPTH_MAX {
                        return Err(malformed_xml());
                    }
                    check_attributes(start.attributes_raw())?;
                    elements += 1;
                    open.push(Self::named(start.local_name().as_ref()));
                }
                Event::Empty(start) => {
                    if root.is_some() || open.len() >= DEPTH_MAX {
                        return Err(malformed_xml());
                    }
                    check_attributes(start.attributes_raw())?;
                    elements += 1;
                    close(Self::named(start.local_name().as_ref()), &mut open, &mut root);
                }
                Event::End(_) => {
                    let ended = open.pop().ok_or_else(malformed_xml)?;
                    close(ended, &mut open, &mut root);
                }
                Event::Text(text) => put(&mut open, &text.xml10_content())?,
                Event::CData(text) => put(&mut open, &text.xml10_content())?,
                Event::GeneralRef(entity) => {
                    let referred = match entity.resolve_char_ref() {
                        Ok(Some(letter)) => letter.to_string(),
                        Ok(None) => known_entity(&entity.xml10_content())
                            .ok_or_else(malformed_xml)?
                            .to_owned(),
                        Err(_) => return Err(malformed_xml()),
                    };
                    if open.is_empty() {
                        return Err(malformed_xml());
                    }
                    put(&mut open, &referred)?;
                }
                Event::Decl(_) | Event::Comment(_) => {}
                Event::DocType(_) | Event::PI(_) => return Err(malformed_xml()),
                Event::Eof => break,
            }
        }
        if open.is_empty() { root.ok_or_else(malformed_xml) } else { Err(malformed_xml()) }
    }

    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The text of an element that has no others inside, without white space around it.
    pub(crate) fn text(&self) -> &str {
        self.text.trim()
    }

    /// The text as it stands, for names of files.
    pub(crate) fn raw_text(&self) -> &str {
        &self.text
    }

    /// The elements inside that have this name.
    pub(crate) fn all<'e>(&'e self, name: &str) -> impl Iterator<Item = &'e Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The one element inside that has this name; refused when there are several.
    pub(crate) fn opt(&self, name: &str) -> Result<Option<&Self>, S3Refusal> {
        let mut found = self.all(name);
        let first = found.next();
        if found.next().is_some() { Err(malformed_xml()) } else { Ok(first) }
    }

    pub(crate) fn one(&self, name: &str) -> Result<&Self, S3Refusal> {
        self.opt(name)?.ok_or_else(malformed_xml)
    }

    pub(crate) fn opt_text(&self, name: &str) -> Result<Option<&str>, S3Refusal> {
        Ok(self.opt(name)?.map(Self::text))
    }

    /// Refuses elements inside that are not among these.
    pub(crate) fn only(&self, names: &[&str]) -> Result<(), S3Refusal> {
        let known = |child: &Self| names.contains(&child.name.as_str());
        if self.children.iter().all(known) { Ok(()) } else { Err(malformed_xml()) }
    }
}

fn close(ended: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(ended),
        None => *root = Some(ended),
    }
}

fn put(open: &mut [Element], text: &str) -> Result<(), S3Refusal> {
    match open.last_mut() {
        Some(element) => {
            element.text.push_str(text);
            Ok(())
        }
        // Between and around the outermost element only white space may stand.
        None if text.trim().is_empty() => Ok(()),
        None => Err(malformed_xml()),
    }
}

/// The text with a sign in the place of every character that XML 1.0 cannot carry.
fn carried(text: &str) -> Cow<'_, str> {
    let is_lost = |letter: char| match letter {
        '\t' | '\n' | '\r' => false,
        '\u{fffe}' | '\u{ffff}' => true,
        other => other < ' ',
    };
    if text.contains(is_lost) { text.replace(is_lost, "\u{fffd}").into() } else { text.into() }
}

fn check_attributes(raw: &str) -> Result<(), S3Refusal> {
    if raw.len() > ATTRIBUTES_BYTES_MAX { Err(malformed_xml()) } else { Ok(()) }
}

fn known_entity(name: &str) -> Option<&'static str> {
    match name {
        "amp" => Some("&"),
        "lt" => Some("<"),
        "gt" => Some(">"),
        "quot" => Some("\""),
        "apos" => Some("'"),
        _ => None,
    }
}

/// An answer on its way out, element by element.
pub(crate) struct Writer {
    xml: String,
    open: Vec<&'static str>,
}

impl Writer {
    /// Begins a document.
    pub(crate) fn new(root: &'static str) -> Self {
        let mut writer = Self::without_namespace(root);
        writer.xml.truncate(writer.xml.len() - 1);
        writer.xml.push_str(" xmlns=\"");
        writer.xml.push_str(NAMESPACE);
        writer.xml.push_str("\">");
        writer
    }

    /// Begins a document of the kind that errors are.
    pub(crate) fn without_namespace(root: &'static str) -> Self {
        let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n".to_owned();
        let mut writer = Self { xml, open: Vec::new() };
        writer.begin(root);
        writer
    }

    pub(crate) fn begin(&mut self, name: &'static str) {
        self.xml.push('<');
        self.xml.push_str(name);
        self.xml.push('>');
        self.open.push(name);
    }

    pub(crate) fn end(&mut self) {
        if let Some(name) = self.open.pop() {
            self.close_tag(name);
        }
    }

    fn close_tag(&mut self, name: &str) {
        self.xml.push_str("</");
        self.xml.push_str(name);
        self.xml.push('>');
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.xml.push('<');
        self.xml.push_str(name);
        self.xml.push('>');
        self.put(text);
        self.close_tag(name);
    }

    /// Text inside of the element that is open.
    pub(crate) fn put(&mut self, text: &str) {
        let text = carried(text);
        // Readers turn a plain carriage return into a line feed.
        for (at, piece) in text.split('\r').enumerate() {
            if at > 0 {
                self.xml.push_str("&#13;");
            }
            self.xml.push_str(&partial_escape(piece).replace('"', "&quot;"));
        }
    }

    pub(crate) fn opt_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An element that the answer has as it is; the text is one of ours and holds nothing to escape.
    pub(crate) fn raw(&mut self, xml: &str) {
        self.xml.push_str(xml);
    }

    pub(crate) fn number(&mut self, name: &str, number: impl Into<u64>) {
        self.text(name, &number.into().to_string());
    }

    pub(crate) fn truth(&mut self, name: &str, truth: bool) {
        self.text(name, if truth { "true" } else { "false" });
    }

    pub(crate) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.xml
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Element, S3Refusal> {
        Element::parse(text.as_bytes(), &["a"])
    }

    #[test]
    fn s3_156_documents_are_read_within_limits() {
        let read_well = read(
            "<?xml version=\"1.0\"?><a xmlns=\"x\"><n:b xmlns:n=\"y\">1 &amp; &#x32;</n:b><c/>\
             <b><![CDATA[<]]></b><!-- no --></a>\n",
        );
        let root = read_well.expect("a document");
        let texts: Vec<_> = root.all("b").map(Element::text).collect();
        assert_eq!(texts, ["1 & 2", "<"]);
        assert!(root.opt("b").is_err() && root.opt("d") == Ok(None) && root.one("c").is_ok());
        for depth in [16, 17] {
            let nested = format!("<a>{}{}</a>", "<b>".repeat(depth - 1), "</b>".repeat(depth - 1));
            assert_eq!(read(&nested).is_ok(), depth == 16, "{depth}");
        }
        let bomb = "<!DOCTYPE a [<!ENTITY b \"xx\">]><a>&b;</a>";
        let attributes = format!("<a {}/>", "x=\"1\" ".repeat(2000));
        for wrong in [
            bomb,
            &attributes,
            "",
            "<a>",
            "<a></b>",
            "<a/><a/>",
            "<b/>",
            "x<a/>",
            "<a>&b;</a>",
            "<a>&#0;</a>",
            "<?pi x?><a/>",
            "<a",
            "<a>\u{0}",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(Element::parse(b"<a>\xff</a>", &["a"]).is_err());
        for (inside, fits) in [(9_999, true), (10_000, false)] {
            for element in ["<b/>", "<b></b>"] {
                let many = format!("<a>{}</a>", element.repeat(inside));
                assert_eq!(read(&many).is_ok(), fits, "{inside}");
            }
        }
    }

    proptest! {
        #[test]
        fn s3_134_what_is_written_is_read_back(
            text in "[\\PC\\p{C}]{0,20}[\r\t\n&<>\"'\u{1}\u{fffe}\u{ffff}]{0,3}x"
        ) {
            let mut writer = Writer::new("a");
            writer.text("b", &text);
            let root = read(&writer.finish()).expect("our own");
            let lost = |letter: char| {
                (letter < ' ' && !"\t\r\n".contains(letter))
                    || ('\u{fffe}'..='\u{ffff}').contains(&letter)
            };
            let carried = text.replace(lost, "\u{fffd}");
            prop_assert_eq!(root.one("b").expect("there").raw_text(), carried.as_str());
        }

        #[test]
        fn reading_never_panics(text in "[<>/a-b&;!?=\" ]{0,40}") {
            drop(read(&text));
        }
    }
}
