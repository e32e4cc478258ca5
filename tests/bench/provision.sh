#!/usr/bin/env bash
# Provisions one device without azaion-provision: creates its user on the admin API and writes its device.conf. The
# benchmark compares azaion-provision with this script, which has no retries, and handles neither existing users nor
# interruptions.
#
# usage: provision.sh SERIAL ROOTFS, with API_URL, CA_FILE, ADMIN_EMAIL and ADMIN_PASSWORD_FILE in the environment
set -euo pipefail

serial=$1
rootfs=$2
suffix=${serial#AZJN-}
email="azaion-jetson-${suffix,,}@azaion.com"
password=$(openssl rand -hex 16)
admin_password=$(<"$ADMIN_PASSWORD_FILE")

post() {
    curl -fsS --cacert "$CA_FILE" -H 'Content-Type: application/json' "$@"
}

token=$(post -d @- "$API_URL/login" <<END | sed -n 's/.*"token":"\([^"]*\)".*/\1/p'
{"email":"$ADMIN_EMAIL","password":"$admin_password"}
END
)

post -o /dev/null -H "Authorization: Bearer $token" -d @- "$API_URL/users" <<END
{"email":"$email","password":"$password","role":"CompanionPC"}
END

mkdir -p "$rootfs/etc/azaion"
cat >"$rootfs/etc/azaion/device.conf" <<END
AZAION_DEVICE_SERIAL=$serial
AZAION_DEVICE_EMAIL=$email
AZAION_DEVICE_PASSWORD=$password
AZAION_API_URL=$API_URL
AZAION_PROVISIONED_AT=$(date -u +%Y-%m-%dT%H:%M:%SZ)
END
chmod 600 "$rootfs/etc/azaion/device.conf"
