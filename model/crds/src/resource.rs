//! How is one of our types known as a Kubernetes resource?

/// Makes a struct with `api_version`, `kind` and `metadata` a Kubernetes resource, as the client library wants it.
macro_rules! resource {
    ($type:ident, $plural:literal, $scope:ident) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = "cilium.io/v2";
            const GROUP: &'static str = "cilium.io";
            const KIND: &'static str = stringify!($type);
            const VERSION: &'static str = "v2";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::$scope;
        }

        impl k8s_openapi::ListableResource for $type {
            const LIST_KIND: &'static str = concat!(stringify!($type), "List");
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }

        impl $type {
            /// What `apiVersion` says.
            pub fn default_api_version() -> String {
                <Self as k8s_openapi::Resource>::API_VERSION.to_owned()
            }

            /// What `kind` says.
            pub fn default_kind() -> String {
                <Self as k8s_openapi::Resource>::KIND.to_owned()
            }
        }
    };
}

pub(crate) use resource;

/// Schema of `metadata`: the API server knows better.
pub(crate) fn metadata_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object" })
}
