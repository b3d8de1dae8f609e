# What a key custodian may do on a tenant's mount: make, import, rotate and
# retire keys. Not use them, not make them leave, not destroy them. Replace
# MOUNT by the tenant's transit mount.

path "MOUNT/keys"         { capabilities = ["list"] }
path "MOUNT/wrapping_key" { capabilities = ["read"] }
path "MOUNT/config/keys"  { capabilities = ["read", "update"] }

# update makes a key here; create alone would not
path "MOUNT/keys/+" {
  capabilities       = ["read", "update"]
  allowed_parameters = { "type" = ["aes256-gcm96", "ed25519"], "derived" = [], "auto_rotate_period" = [] }
}
path "MOUNT/keys/+/rotate" { capabilities = ["update"] }
path "MOUNT/keys/+/import" {
  capabilities      = ["update"]
  denied_parameters = { "exportable" = [], "allow_plaintext_backup" = [] }
}
path "MOUNT/keys/+/import_version" { capabilities = ["update"] }
path "MOUNT/keys/+/config" {
  capabilities      = ["update"]
  denied_parameters = { "exportable" = [], "allow_plaintext_backup" = [], "deletion_allowed" = [] }
}

# suspending rmsd: destroy its secret IDs, or its tokens by accessor
path "auth/approle/role/+/secret-id"                  { capabilities = ["update", "list"] }
path "auth/approle/role/+/secret-id-accessor/destroy" { capabilities = ["update"] }
path "auth/token/revoke-accessor"                     { capabilities = ["update"] }
