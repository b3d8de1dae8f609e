# What rmsd may do with one root key. A tenant whose documents are under several
# keys of the mount, an old one and one that was brought, has this once for each
# in the one policy, after rmsd.hcl: policies act on tokens that exist, so that a
# key is added and taken away without a new login. Replace MOUNT by the tenant's
# transit mount and KEY by the key's name.

# update alone: create would let a mistyped name make a new key
path "MOUNT/encrypt/KEY" { capabilities = ["update"] }
path "MOUNT/decrypt/KEY" { capabilities = ["update"] }
path "MOUNT/rewrap/KEY"  { capabilities = ["update"] }

# attributes and versions
path "MOUNT/keys/KEY" { capabilities = ["read"] }
