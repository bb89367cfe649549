//! The link to the vault: secrets one at a time, and the marks by which they are looked for.

use std::sync::{Arc, Mutex, PoisonError};

use protocol::ids::SecretName;
use protocol::marks::Marks;
use protocol::vault::{Purpose, SecretText};
use tokio::task::spawn_blocking;
use vault::{VaultClient, VaultError};

/// The link, if there is one.
#[derive(Clone, Default)]
pub(crate) struct VaultLink(Arc<Mutex<Option<Arc<Mutex<VaultClient>>>>>);

/// Why the vault did not give what it was asked for, in its own words.
pub(crate) struct NotGiven(pub(crate) String);

impl VaultLink {
    /// Uses this link from now on.
    pub(crate) fn replace(&self, client: VaultClient) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Mutex::new(client)));
    }

    /// Opens a secret to be sent to this host for a tool.
    pub(crate) async fn open_for_tool(
        &self,
        name: &SecretName,
        host: &str,
    ) -> Result<SecretText, NotGiven> {
        self.open(name, Purpose::Tool, host).await
    }

    /// Opens a secret to be sent to this host of the model.
    pub(crate) async fn open_for_model(
        &self,
        name: &SecretName,
        host: &str,
    ) -> Result<SecretText, NotGiven> {
        self.open(name, Purpose::Model, host).await
    }

    async fn open(
        &self,
        name: &SecretName,
        purpose: Purpose,
        host: &str,
    ) -> Result<SecretText, NotGiven> {
        let (name, host) = (name.clone(), host.to_owned());
        self.ask(move |client| client.open_for(&name, purpose, &host))
            .await
    }

    /// The marks of all that the vault holds, if it changed since this generation.
    pub(crate) async fn marks_after(&self, known: u64) -> Result<Option<(u64, Marks)>, NotGiven> {
        self.ask(move |client| client.marks_after(known)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut VaultClient) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, NotGiven> {
        let client = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let client = client.ok_or_else(|| NotGiven("it is down".to_owned()))?;
        let asked = spawn_blocking(move || {
            question(&mut client.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match asked.await {
            Ok(answer) => answer.map_err(|error| NotGiven(error.to_string())),
            Err(_) => Err(NotGiven("asking it failed".to_owned())),
        }
    }
}
