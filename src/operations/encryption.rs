//! Server-side encryption of content: how new blobs are sealed, and who may open which.

use bytes::Bytes;

use crate::auth::data_keys::{self, DataKeyError};
use crate::blobs::BlobWriter;
use crate::blobs::sealed::Sealer;
use crate::catalog::blob_refs::{NewBlob, StoredBlob};
use crate::domain::blob::Seal;
use crate::domain::digest::Digests;
use crate::domain::encryption::{AskedEncryption, CustomerKey, DataKey, Encryption, Sealing};
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;
use crate::domain::refusal::{
    Refusal, customer_key_needed, customer_key_unused, wrong_customer_key,
};
use crate::operations::App;
use crate::operations::download::Through;
use crate::operations::error::Error;

/// How a version whose content is sealed so is encrypted. For a customer's key the check is new
/// each time.
pub(crate) fn encryption_of(app: &App, sealing: &Sealing) -> Result<Encryption, DataKeyError> {
    Ok(match sealing {
        Sealing::None => Encryption::None,
        Sealing::Managed => Encryption::Managed,
        Sealing::Customer(key) => {
            Encryption::Customer { key_check: data_keys::key_check(key, &*app.entropy)? }
        }
    })
}

/// Content on its way into a new blob.
pub(crate) struct Intake {
    id: BlobId,
    writer: Box<dyn BlobWriter>,
    sealing: Sealing,
    key: Option<DataKey>,
}

impl Intake {
    /// Begins a blob whose content has `size` bytes.
    pub(crate) async fn begin(app: &App, size: u64, sealing: &Sealing) -> Result<Self, Error> {
        let id = app.numbers.blob(app.clock.now());
        let key = match sealing {
            Sealing::None => None,
            Sealing::Managed | Sealing::Customer(_) => Some(data_keys::draw(&*app.entropy)),
        };
        let sealer = key.as_ref().map(|key| Sealer::new(key, id, size)).transpose()?;
        let writer = app.blobs.begin(id, size, sealer).await?;
        Ok(Self { id, writer, sealing: sealing.clone(), key })
    }

    /// The blob that the content becomes.
    pub(crate) fn id(&self) -> BlobId {
        self.id
    }

    /// Takes the next bytes. Waiting for it is the back-pressure.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        Ok(self.writer.write(chunk).await?)
    }

    /// Waits for all bytes and tells what they are; nothing can be written afterwards.
    pub(crate) async fn digests(&mut self) -> Result<Digests, Error> {
        Ok(self.writer.digests().await?)
    }

    /// Makes the content durable. `digests` are those that were told.
    pub(crate) async fn finish(self, app: &App, digests: &Digests) -> Result<NewBlob, Error> {
        let Self { id, writer, sealing, key } = self;
        let placement = writer.finish().await?;
        // Wrapped only now, with the key that is current when the blob is committed.
        let seal = match (&sealing, &key) {
            (Sealing::None, _) | (_, None) => Seal::Plain,
            (Sealing::Managed, Some(key)) => app.key_ring.wrap(id, key, &*app.entropy)?,
            (Sealing::Customer(customer), Some(key)) => {
                Seal::Customer(data_keys::wrap_for_customer(customer, id, key, &*app.entropy)?)
            }
        };
        let (size, checks) = (digests.size, digests.checks.clone());
        Ok(NewBlob { id, size, checks, placement, seal })
    }
}

/// Reads a range of a blob and writes it into a new blob that is sealed otherwise, in one stream.
/// `key` is the customer's of the blob that is read. Hands each chunk of the content to `each`.
pub(crate) async fn reseal(
    app: &App,
    blob: &StoredBlob,
    range: ByteRange,
    key: Option<&CustomerKey>,
    sealing: &Sealing,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(Digests, Intake), Error> {
    let mut intake = Intake::begin(app, range.len(), sealing).await?;
    let mut through = Through::begin(app, blob, range, key).await?;
    while let Some(chunk) = through.next(app).await? {
        each(&chunk);
        intake.write(chunk).await?;
    }
    Ok((intake.digests().await?, intake))
}

/// Refuses a request that brings no key, a wrong one, or one too many for content that is encrypted
/// so. Comes before any byte.
pub(crate) fn check_key(
    encryption: &Encryption,
    offered: Option<&CustomerKey>,
) -> Result<(), Refusal> {
    match (encryption, offered) {
        (Encryption::Customer { .. }, None) => Err(customer_key_needed()),
        (Encryption::Customer { key_check }, Some(key)) if data_keys::fits(key, key_check) => {
            Ok(())
        }
        (Encryption::Customer { .. }, Some(_)) => Err(wrong_customer_key()),
        (Encryption::None | Encryption::Managed, None) => Ok(()),
        (Encryption::None | Encryption::Managed, Some(_)) => Err(customer_key_unused()),
    }
}

/// How a part of a large file is to be sealed.
pub(crate) fn sealing_of_part(
    file: &Encryption,
    asked: AskedEncryption,
) -> Result<Sealing, Refusal> {
    let sealing = file.sealing_of_part(asked)?;
    if let Sealing::Customer(key) = &sealing {
        check_key(file, Some(key))?;
    }
    Ok(sealing)
}

/// Whether content that is encrypted so is what it would be with that sealing, so that new versions
/// can share its blobs.
pub(crate) fn is_sealed_alike(encryption: &Encryption, sealing: &Sealing) -> bool {
    match (encryption, sealing) {
        (Encryption::None, Sealing::None) | (Encryption::Managed, Sealing::Managed) => true,
        (Encryption::Customer { key_check }, Sealing::Customer(key)) => {
            data_keys::fits(key, key_check)
        }
        _ => false,
    }
}

/// The data key of a stored blob; None when it is not sealed. Whoever calls has checked that the
/// customer's key is the right one.
pub(crate) fn data_key(
    app: &App,
    blob: &StoredBlob,
    customer: Option<&CustomerKey>,
) -> Result<Option<DataKey>, DataKeyError> {
    match &blob.seal {
        Seal::Plain => Ok(None),
        Seal::Managed { ring_key, wrapped } => {
            app.key_ring.unwrap(blob.id, *ring_key, wrapped).map(Some)
        }
        Seal::Customer(wrapped) => {
            let customer = customer.ok_or(DataKeyError::NoCustomerKey(blob.id))?;
            data_keys::unwrap_for_customer(customer, blob.id, wrapped).map(Some)
        }
    }
}
