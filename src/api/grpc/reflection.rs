//! Server reflection, which tells `buf curl` and `grpcurl` what the protos say.

use axum::Router;
use tonic_reflection::server::Builder;

use super::proto::DESCRIPTORS;

/// Reflection in its two versions; many tools know the older one only.
pub(super) fn routes() -> Router {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let sound = "the descriptors are what the protos compile to";
    let (v1, v1alpha) = (builder().build_v1().expect(sound), builder().build_v1alpha().expect(sound));
    Router::new()
        .route_service("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", v1)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", v1alpha)
}
