# What the act of destroying needs, for a token of minutes that is handed out
# wrapped, after approval, and never lies around. Replace MOUNT by the tenant's
# transit mount.

path "MOUNT/keys/+" { capabilities = ["read", "delete"] }

# versions below a floor, once the floor is there
path "MOUNT/keys/+/trim" { capabilities = ["update"] }
path "MOUNT/keys/+/config" {
  capabilities       = ["update"]
  allowed_parameters = { "deletion_allowed" = [], "min_decryption_version" = [], "min_encryption_version" = [] }
}
