//! CRI's ImageService.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_cri::v1::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest,
    ImageStatusResponse, ListImagesRequest, ListImagesResponse, PullImageRequest, PullImageResponse,
    RemoveImageRequest, RemoveImageResponse, UInt64Value, image_service_server::ImageService,
};
use tonic::{Request, Response, Status};

use super::view;
use crate::{
    disk,
    error::Failure,
    images::{Auth, ImageError},
    runtime::Runtime,
};

/// The service.
pub(crate) struct Images(pub(crate) Arc<Runtime>);

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image).unwrap_or_default().image;
        let images = if wanted.is_empty() {
            self.0.images.list().map_err(Failure::from)?
        } else {
            found(self.0.images.find(&wanted))?.into_iter().collect()
        };
        Ok(Response::new(ListImagesResponse { images: images.iter().map(view::image).collect() }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        // By CRI's rule an image that is not there is an empty answer, no error.
        let image = found(self.0.images.find(&wanted))?;
        Ok(Response::new(ImageStatusResponse {
            image: image.as_ref().map(view::image),
            info: std::collections::HashMap::new(),
        }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.image.unwrap_or_default().image;
        let registries = self.0.registries()?;
        let entry = self.0.images.pull(&wanted, auth(request.auth), &registries).await.map_err(Failure::from)?;
        Ok(Response::new(PullImageResponse { image_ref: entry.manifest }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        let images = &self.0.images;
        // By CRI's rule removing an image removes all its names.
        if let Some(image) = found(images.find(&wanted))? {
            let removed = images.remove(&image.id).map_err(Failure::from)?;
            self.0.compiler.forget(images, removed.into_iter().map(|entry| entry.component));
        }
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
        let images = &self.0.images;
        let usage = FilesystemUsage {
            timestamp: disk::now_ns(),
            fs_id: Some(FilesystemIdentifier { mountpoint: images.dir().to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: images.used_bytes() }),
            inodes_used: Some(UInt64Value { value: 0 }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}

/// An image that is not there is none; a name that is none is the caller's mistake.
fn found<T>(result: Result<T, ImageError>) -> Result<Option<T>, Failure> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(ImageError::Reference(error)) => Err(Failure::Invalid(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Credentials as CRI carries them; `auth` is `user:password` in base64, as in Docker's config.
fn auth(auth: Option<AuthConfig>) -> Auth {
    let Some(auth) = auth else { return Auth::Anonymous };
    if !auth.registry_token.is_empty() {
        return Auth::Bearer(auth.registry_token);
    }
    if !auth.username.is_empty() {
        return Auth::Basic(auth.username, auth.password);
    }
    let decoded = BASE64_STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => Auth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => Auth::Anonymous,
    }
}
