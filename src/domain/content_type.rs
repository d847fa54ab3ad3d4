//! Content types, and `b2/x-auto`, which asks for one by the file name's extension.

use crate::domain::refusal::{Refusal, bad_request, shorten};

/// Sent by clients that leave the choice to the server.
const AUTO: &str = "b2/x-auto";
const UNKNOWN: &str = "application/octet-stream";

/// Extensions and their types, as in Backblaze's public table; sorted by extension.
const BY_EXTENSION: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/x-aac"),
    ("ai", "application/postscript"),
    ("aif", "audio/x-aiff"),
    ("aiff", "audio/x-aiff"),
    ("apk", "application/vnd.android.package-archive"),
    ("asc", "application/pgp-signature"),
    ("atom", "application/atom+xml"),
    ("avi", "video/x-msvideo"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("c", "text/x-c"),
    ("class", "application/java-vm"),
    ("conf", "text/plain"),
    ("cpp", "text/x-c"),
    ("crt", "application/x-x509-ca-cert"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("deb", "application/x-debian-package"),
    ("dll", "application/x-msdownload"),
    ("dmg", "application/x-apple-diskimage"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eml", "message/rfc822"),
    ("eot", "application/vnd.ms-fontobject"),
    ("eps", "application/postscript"),
    ("epub", "application/epub+zip"),
    ("exe", "application/x-msdownload"),
    ("flac", "audio/x-flac"),
    ("flv", "video/x-flv"),
    ("gif", "image/gif"),
    ("h", "text/x-c"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar"),
    ("iso", "application/x-iso9660-image"),
    ("jar", "application/java-archive"),
    ("java", "text/x-java-source"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "application/javascript"),
    ("json", "application/json"),
    ("log", "text/plain"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4v", "video/x-m4v"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("msi", "application/x-msdownload"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("otf", "application/x-font-otf"),
    ("p12", "application/x-pkcs12"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("ps", "application/postscript"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("rar", "application/x-rar-compressed"),
    ("rs", "application/rls-services+xml"),
    ("rtf", "application/rtf"),
    ("sh", "application/x-sh"),
    ("sig", "application/pgp-signature"),
    ("sql", "application/x-sql"),
    ("svg", "image/svg+xml"),
    ("swf", "application/x-shockwave-flash"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("torrent", "application/x-bittorrent"),
    ("ttf", "application/x-font-ttf"),
    ("txt", "text/plain"),
    ("vcf", "text/x-vcard"),
    ("wav", "audio/x-wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("wma", "audio/x-ms-wma"),
    ("wmv", "video/x-ms-wmv"),
    ("woff", "application/font-woff"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("zip", "application/zip"),
];

/// The type to store for a file that was sent with `given` in the header or field of this name.
pub(crate) fn resolve(field: &str, given: &str, file_name: &str) -> Result<String, Refusal> {
    let given = given.trim();
    if given.is_empty() {
        return Err(bad_request(format!("{field} must not be empty")));
    }
    if given.len() > 1024 || !given.bytes().all(|b| (32..127).contains(&b)) {
        return Err(bad_request(format!("Bad {field}: '{}'", shorten(given))));
    }
    if given.eq_ignore_ascii_case(AUTO) {
        Ok(by_extension(file_name))
    } else {
        Ok(given.to_owned())
    }
}

fn by_extension(file_name: &str) -> String {
    let last_segment = file_name.rsplit('/').next().unwrap_or_default();
    let extension = match last_segment.rsplit_once('.') {
        Some((_, extension)) => extension.to_ascii_lowercase(),
        None => return UNKNOWN.to_owned(),
    };
    match BY_EXTENSION.binary_search_by_key(&extension.as_str(), |(known, _)| known) {
        Ok(at) => BY_EXTENSION.get(at).map_or(UNKNOWN, |(_, kind)| kind).to_owned(),
        Err(_) => UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_154_auto_goes_by_the_extension() {
        let auto =
            |name| resolve("Content-Type", "b2/x-auto", name).expect("auto always finds one");
        assert_eq!(auto("a/b.TXT"), "text/plain");
        assert_eq!(auto("b.jpg"), "image/jpeg");
        for unknown in ["b.bin", "none", "dir.txt/none", "x.unheard-of", "trailing."] {
            assert_eq!(auto(unknown), "application/octet-stream", "{unknown}");
        }
    }

    #[test]
    fn native_151_155_explicit_types_stay_and_missing_ones_are_refused() {
        let of = |given: &str| resolve("contentType", given, "x.txt");
        assert_eq!(of("a/b; c=d").as_deref(), Ok("a/b; c=d"));
        for wrong in ["", " ", "text/\u{1}", &"t".repeat(1025)] {
            let refusal = of(wrong).expect_err("no content type");
            assert!(refusal.message.contains("contentType"), "{refusal}");
        }
    }

    #[test]
    fn the_table_is_sorted_for_the_search() {
        assert!(BY_EXTENSION.is_sorted_by_key(|(extension, _)| extension));
    }
}
