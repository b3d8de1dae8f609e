# What a key custodian may do on a tenant's mount: make, import, rotate and
# retire keys, and switch the service off. Not use keys, not make them leave, not
# destroy them, not switch the service on again. Replace MOUNT by the tenant's
# transit mount and POLICY by the policy of rmsd's role.
#
#   sed 's,MOUNT,transit-rms-contoso,; s,POLICY,rms-contoso,' custody-officer.hcl |
#     vault policy write rms-contoso-officer -

# what an HSM wraps a key under
path "MOUNT/wrapping_key" { capabilities = ["read"] }

# update makes a key here; create alone would not
path "MOUNT/keys/+" {
  capabilities       = ["read", "update"]
  allowed_parameters = { "type" = ["aes256-gcm96", "ed25519"], "derived" = [true, "true"], "auto_rotate_period" = [] }
}
path "MOUNT/keys/+/rotate" { capabilities = ["update"] }

# derived must be said, and be true: Vault's default would make a key whose
# context it ignores
path "MOUNT/keys/+/import" {
  capabilities        = ["update"]
  required_parameters = ["derived"]
  allowed_parameters  = { "type" = ["aes256-gcm96"], "derived" = [true, "true"], "allow_rotation" = [], "ciphertext" = [], "hash_function" = [] }
}
path "MOUNT/keys/+/import_version" {
  capabilities       = ["update"]
  allowed_parameters = { "ciphertext" = [], "hash_function" = [] }
}
path "MOUNT/keys/+/config" {
  capabilities       = ["update"]
  allowed_parameters = { "min_decryption_version" = [], "min_encryption_version" = [], "auto_rotate_period" = [] }
}

# the switch: rmsd's policy may be emptied, with this text and no other
path "sys/policies/acl/POLICY" {
  capabilities       = ["update"]
  allowed_parameters = { "policy" = ["# switched off\n"] }
}
