# What rmsd may do with one tenant's keys: use them, and look at them. This part
# is for the login and the signing key; each root key adds rmsd-key.hcl. One
# mount, one role and one policy per tenant; replace MOUNT by the tenant's
# transit mount. Paths are exact on purpose: a trailing * on keys/ would also
# grant rotate, config and trim.
#
#   { sed s,MOUNT,transit-rms-contoso, rmsd.hcl
#     sed 's,MOUNT,transit-rms-contoso,; s,KEY,root,' rmsd-key.hcl
#   } | vault policy write rms-contoso -
#   vault write auth/approle/role/rms-contoso token_policies=rms-contoso \
#     token_no_default_policy=true token_period=20m secret_id_num_uses=0 \
#     secret_id_bound_cidrs=10.0.0.7/32 token_bound_cidrs=10.0.0.7/32

# the signing key: its use, attributes, versions and public keys
path "MOUNT/sign/sign" { capabilities = ["update"] }
path "MOUNT/keys/sign" { capabilities = ["read"] }

# rmsd proves at start that it may do this and no more
path "sys/capabilities-self" { capabilities = ["update"] }

# its own login; needed because Vault's default policy is left out. With
# token_file instead of approle, auth/token/lookup-self (read) as well.
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
