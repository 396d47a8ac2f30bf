//! One X.509-SVID on its way: the key, the request, and what comes of the answer.

use identity::{
    Certificate, EntryId, KeyError, KeyType, PrivateKey, RegistrationEntry, SpiffeId, X509Error,
    X509Svid,
};

/// Why there is no SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The key or the CSR could not be made.
    #[error("making the key and its CSR: {0}")]
    Key(#[from] KeyError),
    /// The server's chain is no chain, or not for this key.
    #[error("reading the server's answer: {0}")]
    Chain(#[from] X509Error),
    /// The server gave somebody else's identity.
    #[error("the server issued {got}, where {wanted} was asked for")]
    OtherIdentity {
        /// What the entry says.
        wanted: SpiffeId,
        /// What the certificate says.
        got: SpiffeId,
    },
}

/// A key waiting for its certificate.
#[derive(Debug, Clone)]
pub struct SvidRequest {
    /// For which entry.
    pub entry_id: EntryId,
    /// The entry's revision at the time of asking.
    pub revision: i64,
    /// The request to be sent, DER.
    pub csr: Vec<u8>,
    spiffe_id: SpiffeId,
    key: PrivateKey,
}

impl SvidRequest {
    /// Makes a key and its CSR: some 20 µs of work for ec-p256, up to a second for RSA.
    ///
    /// # Errors
    /// [`RequestError::Key`].
    pub fn new(entry: &RegistrationEntry, key_type: KeyType) -> Result<Self, RequestError> {
        let key = PrivateKey::generate(key_type)?;
        let csr = key.csr(Some(&entry.spiffe_id), &[])?;
        Ok(Self {
            entry_id: entry.id.clone(),
            revision: entry.revision,
            csr,
            spiffe_id: entry.spiffe_id.clone(),
            key,
        })
    }

    /// Joins the key with the server's chain (DER certificates, leaf first).
    ///
    /// # Errors
    /// When the chain is not for this key and identity.
    pub fn finish<C: AsRef<[u8]>>(self, chain: &[C]) -> Result<X509Svid, RequestError> {
        let chain: Vec<Certificate> = chain
            .iter()
            .map(|der| Certificate::from_der(der.as_ref()))
            .collect::<Result<_, _>>()?;
        let svid = X509Svid::new(chain, self.key)?;
        if *svid.id() != self.spiffe_id {
            return Err(RequestError::OtherIdentity {
                wanted: self.spiffe_id,
                got: svid.id().clone(),
            });
        }
        Ok(svid)
    }
}
