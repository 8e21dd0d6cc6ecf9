//! Sees to it that images are there: pull policies, pull secrets.

use k8s_cri::v1::{Image, ImageSpec, ImageStatusRequest, PullImageRequest};
use k8s_openapi::api::core::v1::Secret;
use skiff_client::EventType;

use super::{
    credentials::Keyring,
    execute::Job,
    security::{self, ImageUser},
};
use crate::{runtime::CriError, volumes::setup::fetch};

impl Job {
    pub(super) async fn ensure_image(&self, name: &str) -> Result<String, (&'static str, String)> {
        let image = self.container(name).map_err(|e| ("InspectFailed", e))?.image.clone().unwrap_or_default();
        let failed = |reason: &'static str, message: String| {
            self.event(Some(name), EventType::Warning, "Failed", format!("Error: {reason}"));
            (reason, message)
        };
        let tagged = super::image::with_tag(&image).map_err(|e| {
            let message =
                format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {e}");
            self.event(Some(name), EventType::Warning, "InspectFailed", &*message);
            failed("InvalidImageName", message)
        })?;
        let policy = self.container(name).ok().and_then(|container| container.image_pull_policy.as_deref());
        let policy = policy.unwrap_or(if tagged.ends_with(":latest") { "Always" } else { "IfNotPresent" });
        let spec = ImageSpec {
            image: tagged,
            user_specified_image: image.clone(),
            runtime_handler: self.ctx.handler(&self.desired.pod),
            ..ImageSpec::default()
        };
        let request = ImageStatusRequest { image: Some(spec.clone()), verbose: false };
        let present = self.call(|cri| async move { cri.image_status(request).await }).await;
        let present =
            present.map_err(|e| failed("ImageInspectError", format!("Failed to inspect image {image:?}: {e}")))?.image;
        match (policy, present) {
            ("IfNotPresent" | "Never", Some(found)) => {
                let message =
                    format!("Container image {image:?} already present on machine and can be accessed by the pod");
                self.event(Some(name), EventType::Normal, "Pulled", message);
                self.check_user(name, &found).map_err(|message| failed("CreateContainerConfigError", message))?;
                Ok(found.id)
            }
            ("Never", None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                self.event(Some(name), EventType::Warning, "ErrImageNeverPull", &*message);
                Err(failed("ErrImageNeverPull", message))
            }
            _ => self.pull(name, &image, spec).await.map_err(|message| failed("ErrImagePull", message)),
        }
    }

    async fn pull(&self, name: &str, image: &str, spec: ImageSpec) -> Result<String, String> {
        self.event(Some(name), EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
        let begun = std::time::Instant::now();
        let pulled = self.try_all(image, &spec).await.map_err(|e| {
            self.event(Some(name), EventType::Warning, "Failed", format!("Failed to pull image {image:?}: {e}"));
            e.to_string()
        })?;
        let took = begun.elapsed().as_secs_f64();
        let request = ImageStatusRequest { image: Some(spec), verbose: false };
        let status = self.call(|cri| async move { cri.image_status(request).await }).await;
        let found = status.ok().and_then(|status| status.image).unwrap_or_default();
        let message = format!(
            "Successfully pulled image {image:?} in {took:.3}s ({took:.3}s including waiting). Image size: {} bytes.",
            found.size
        );
        self.event(Some(name), EventType::Normal, "Pulled", message);
        self.check_user(name, &found)?;
        Ok(pulled)
    }

    /// Pulls with each of the credentials that fit, or with none where none fit; the last error counts.
    async fn try_all(&self, image: &str, spec: &ImageSpec) -> Result<String, CriError> {
        let fitting = self.keyring().await.of(image);
        let tries = if fitting.is_empty() { vec![None] } else { fitting.into_iter().map(Some).collect() };
        let mut failed = CriError::internal("no way to pull");
        for auth in tries {
            let sandbox_config = Some(self.sandbox_config(self.attempt));
            let request = PullImageRequest { image: Some(spec.clone()), auth, sandbox_config };
            match self.call(|cri| async move { cri.pull_image(request).await }).await {
                Ok(pulled) => return Ok(pulled.image_ref),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// The credentials of the pod's pull secrets; one that is not there is told of and passed over.
    async fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        for reference in self.desired.spec().image_pull_secrets.iter().flatten() {
            match fetch::<Secret>(&self.ctx.client, self.desired.namespace(), &reference.name).await {
                Ok(Some(secret)) => keyring.add(&secret),
                Ok(None) => self.event(
                    None,
                    EventType::Warning,
                    "FailedToRetrieveImagePullSecret",
                    format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    ),
                ),
                Err(e) => tracing::warn!(error = e.chain(), "a pull secret cannot be read"),
            }
        }
        keyring
    }

    /// Holds `runAsNonRoot` against the image's user.
    fn check_user(&self, name: &str, image: &Image) -> Result<(), String> {
        let user = match (&image.uid, image.username.as_str()) {
            (Some(uid), _) => ImageUser::Id(uid.value),
            (None, "") => ImageUser::Id(0),
            (None, name) => ImageUser::Name(name.to_owned()),
        };
        match security::refuses_root(self.desired.spec(), self.container(name)?, &user) {
            Some(why) => Err(format!("{why} (pod: {:?}, container: {name})", self.desired.full_name())),
            None => Ok(()),
        }
    }
}
