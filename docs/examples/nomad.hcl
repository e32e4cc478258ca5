# One host's part of an order, as a parameterized batch job:
#
#   nomad job run docs/examples/nomad.hcl
#   nomad job dispatch -meta order=4711 provision line-3.csv
#
# The payload is the list. A job that is lost with its machine can be dispatched again: there is no state besides
# the targets and the API.
job "provision" {
  type        = "batch"
  datacenters = ["plant-1"]

  parameterized {
    payload       = "required"
    meta_required = ["order"]
  }

  # The host whose disk has the images.
  constraint {
    attribute = "${meta.flashing_station}"
    value     = "true"
  }

  group "station" {
    # Exit codes 69 and 75 are transient. With any other code a second attempt changes nothing.
    restart {
      attempts = 2
      delay    = "1m"
      interval = "30m"
      mode     = "fail"
    }

    # Another host does not have the images.
    reschedule {
      attempts  = 0
      unlimited = false
    }

    volume "flash" {
      type   = "host"
      source = "flash"
    }

    task "batch" {
      driver = "exec"
      user   = "root"

      dispatch_payload {
        file = "list.csv"
      }

      volume_mount {
        volume      = "flash"
        destination = "/srv/flash"
      }

      config {
        command = "/usr/bin/azaion-provision"
        args = [
          "batch", "${NOMAD_TASK_DIR}/list.csv",
          "--rootfs", "/srv/flash/${NOMAD_META_order}/{serial}.img",
          "--base", "/srv/flash/base.img",
          "--report", "/srv/flash/report-${NOMAD_META_order}.csv",
          "--on-existing", "refuse",
          "--json",
        ]
      }

      # In memory, not on disk, and only for this task.
      template {
        destination = "${NOMAD_SECRETS_DIR}/admin-password"
        perms       = "0600"
        data        = "{{ with nomadVar \"nomad/jobs/provision\" }}{{ .admin_password }}{{ end }}"
      }

      env {
        AZAION_API_URL             = "https://admin.example.com"
        AZAION_ADMIN_EMAIL         = "provisioner@example.com"
        AZAION_ADMIN_PASSWORD_FILE = "${NOMAD_SECRETS_DIR}/admin-password"
      }

      # On SIGTERM the program finishes the current devices, whose calls take at most ten seconds.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      resources {
        cpu    = 500
        memory = 64
      }
    }
  }
}
