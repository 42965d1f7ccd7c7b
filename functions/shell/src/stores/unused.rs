//! Settings for a store that is not in use.

use super::StoreConfig;
use crate::settings::{
    AWS_PROFILE, AWS_REGION, BLOBS, DYNAMODB_ENDPOINT, LOCAL_TABLE, METADATA, S3_ENCRYPTION, S3_ENDPOINT,
    S3_EXPECTED_BUCKET_OWNER, S3_PARTS, S3_PATH_STYLE, S3_PUBLIC_ENDPOINT, Setting,
};

/// A setting and the form of its value.
type Needed = (Setting, &'static str);

const BUCKET: Needed = (BLOBS, "s3://BUCKET");
const TABLE: Needed = (METADATA, "dynamodb://TABLE");

/// A setting that has no effect, because its store is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusedSetting {
    /// The setting.
    pub setting: Setting,
    /// The settings and values with which it has an effect; one of them is enough.
    pub needs: &'static [(Setting, &'static str)],
}

impl StoreConfig {
    /// Fails if there is a setting for a store that is not in use, because the operator believes that the store is in use.
    /// `copies_to_s3` says that S3 is in use, wherever the blobs of the registry are.
    pub fn check(&self, copies_to_s3: bool) -> Result<(), UnusedSetting> {
        let s3 = copies_to_s3 || self.backends.has_s3();
        let dynamodb = self.backends.table().is_some();
        let cloud = &self.cloud;
        let settings: [(_, _, _, &[Needed]); 10] = [
            (S3_ENDPOINT, cloud.s3_endpoint.is_some(), s3, &[BUCKET]),
            (S3_PUBLIC_ENDPOINT, cloud.s3_public_endpoint.is_some(), s3, &[BUCKET]),
            (S3_PATH_STYLE, cloud.path_style.is_some(), s3, &[BUCKET]),
            (
                S3_EXPECTED_BUCKET_OWNER,
                cloud.expected_bucket_owner.is_some(),
                s3,
                &[BUCKET],
            ),
            (S3_ENCRYPTION, cloud.encryption.is_some(), s3, &[BUCKET]),
            (S3_PARTS, cloud.parts.is_some(), s3, &[BUCKET]),
            (LOCAL_TABLE, cloud.local_table.is_some(), dynamodb, &[TABLE]),
            (DYNAMODB_ENDPOINT, cloud.dynamodb_endpoint.is_some(), dynamodb, &[TABLE]),
            (AWS_REGION, cloud.region.is_some(), s3 || dynamodb, &[BUCKET, TABLE]),
            (AWS_PROFILE, cloud.profile.is_some(), s3 || dynamodb, &[BUCKET, TABLE]),
        ];
        match settings
            .into_iter()
            .find(|(_, is_given, is_used, _)| *is_given && !is_used)
        {
            Some((setting, _, _, needs)) => Err(UnusedSetting { setting, needs }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::{Backends, CloudConfig};
    use super::*;

    fn config(blobs: &str, metadata: &str, cloud: CloudConfig) -> StoreConfig {
        StoreConfig {
            backends: Backends::new(blobs.parse().unwrap(), metadata.parse().unwrap(), "data".into()),
            cloud,
        }
    }

    #[test]
    fn settings_of_a_store_that_is_not_in_use_are_refused_by_name() {
        let url = || Some("http://x".parse().unwrap());
        let none = CloudConfig::default;
        for (setting, needs, cloud) in [
            (
                S3_ENDPOINT,
                &[BUCKET][..],
                CloudConfig {
                    s3_endpoint: url(),
                    ..none()
                },
            ),
            (
                S3_PUBLIC_ENDPOINT,
                &[BUCKET],
                CloudConfig {
                    s3_public_endpoint: url(),
                    ..none()
                },
            ),
            (
                S3_PATH_STYLE,
                &[BUCKET],
                CloudConfig {
                    path_style: Some(store_s3::PathStyle::Auto),
                    ..none()
                },
            ),
            (
                S3_EXPECTED_BUCKET_OWNER,
                &[BUCKET],
                CloudConfig {
                    expected_bucket_owner: Some("1".into()),
                    ..none()
                },
            ),
            (
                S3_ENCRYPTION,
                &[BUCKET],
                CloudConfig {
                    encryption: Some(store_s3::Encryption::Bucket),
                    ..none()
                },
            ),
            (
                S3_PARTS,
                &[BUCKET],
                CloudConfig {
                    parts: Some(store_s3::Parts::Growing),
                    ..none()
                },
            ),
            (
                LOCAL_TABLE,
                &[TABLE],
                CloudConfig {
                    local_table: Some("other".parse().unwrap()),
                    ..none()
                },
            ),
            (
                DYNAMODB_ENDPOINT,
                &[TABLE],
                CloudConfig {
                    dynamodb_endpoint: url(),
                    ..none()
                },
            ),
            (
                AWS_REGION,
                &[BUCKET, TABLE],
                CloudConfig {
                    region: Some("a".into()),
                    ..none()
                },
            ),
            (
                AWS_PROFILE,
                &[BUCKET, TABLE],
                CloudConfig {
                    profile: Some("p".into()),
                    ..none()
                },
            ),
        ] {
            let unused = Err(UnusedSetting { setting, needs });
            assert_eq!(config("disk", "sqlite", cloud.clone()).check(false), unused);
            let (s3, table) = (needs.contains(&BUCKET), needs.contains(&TABLE));
            let expected = |is_used: bool| if is_used { Ok(()) } else { unused };
            assert_eq!(config("disk", "sqlite", cloud.clone()).check(true), expected(s3));
            assert_eq!(
                config("s3://bucket", "sqlite", cloud.clone()).check(false),
                expected(s3)
            );
            assert_eq!(
                config("disk", "dynamodb://table", cloud.clone()).check(false),
                expected(table)
            );
            assert_eq!(config("s3://bucket", "dynamodb://table", cloud).check(false), Ok(()));
        }
        assert_eq!(config("disk", "sqlite", none()).check(false), Ok(()));
    }
}
