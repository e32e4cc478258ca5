# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_azaion_provision_global_optspecs
    string join \n json v/verbose no-strict-modes h/help V/version
end

function __fish_azaion_provision_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_azaion_provision_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_azaion_provision_using_subcommand
    set -l cmd (__fish_azaion_provision_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -l json -d 'Print one JSON object per line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -s v -l verbose -d 'Increase verbosity on standard error (repeatable)'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -l no-strict-modes -d 'As root, also accept paths that users other than root and the sudo user can change'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -s h -l help -d 'Print help'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -s V -l version -d 'Print version'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "device" -d 'Create the device\'s account and write device.conf into its targets; safe to repeat'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "batch" -d 'Provision a list of devices, each with its own targets; when repeated, it does the remaining devices'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "inspect" -d 'Print the content of targets: serial, e-mail, API, time, mode, owner, last states of the agent; never the password'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "clear" -d 'Remove device.conf from targets, after flashing'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "check" -d 'Check the prerequisites: privileges, targets, API, admin login'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "explain" -d 'Explain a failure: its cause, and what to do; without ID, list all'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l rootfs -d 'Root file system to write into (repeatable, for A/B layouts)' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l module-serial -d 'Serial number of the device\'s module, as in its /proc/device-tree/serial-number; on another module the agent does not use the credentials. Default: the number that the target already has' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l on-existing -d 'What to do if the account exists and its password is unknown' -r -f -a "update\t'Set a new password; a device flashed earlier with this serial can no longer log in'
refuse\t'Change nothing and fail'
recreate\t'Delete the account and create it with another id, for servers that can\'t set a password; never if the target\'s password works'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l owner -d 'Owner of the files written into a directory: root (needs root), or the caller, for a staging tree whose owners the image builder maps' -r -f -a "root\t'Root (0:0)'
current\t'The caller'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l api-url -d 'URL of the admin API; https, or plain http to a loopback address' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l ca-file -d 'PEM file with CA certificates, in addition to the built-in roots' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l proxy -d 'HTTP proxy that tunnels connections to the API (CONNECT). Other proxy variables are ignored' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l admin-email -d 'E-mail of the admin; required unless --admin-token-file is given' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l admin-password-file -d 'File with the admin\'s password. Default: AZAION_ADMIN_PASSWORD, or a prompt on the terminal' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l admin-token-file -d 'File with an access token of an admin, instead of a login' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l deadline -d 'Time limit in seconds for all API calls for one device and the waits between them [default: 30; in a batch 300, because the API may ask a host to wait]. Copies, checks and the password prompt do not count' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l server-assigned -d 'Use an identity that the server creates (POST /devices) instead of one derived from a serial. A target that holds an identity with a working password keeps it'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l replace -d 'Replace another device\'s device.conf in the target'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l verify -d 'Log in as the device afterwards and validate the token as the device will'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l json -d 'Print one JSON object per line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -s v -l verbose -d 'Increase verbosity on standard error (repeatable)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l no-strict-modes -d 'As root, also accept paths that users other than root and the sudo user can change'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l rootfs -d 'Path of a device\'s root file system, with {serial} in place of its serial (repeatable, for A/B layouts)' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l base -d 'Template that missing root file systems are copied from: a directory, an image or an archive' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l jobs -d 'Number of devices provisioned at the same time' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l report -d 'Write the result for each device to this file; its name must end in .csv or .jsonl' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l on-existing -d 'What to do if the account exists and its password is unknown' -r -f -a "update\t'Set a new password; a device flashed earlier with this serial can no longer log in'
refuse\t'Change nothing and fail'
recreate\t'Delete the account and create it with another id, for servers that can\'t set a password; never if the target\'s password works'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l owner -d 'Owner of the files written into a directory: root (needs root), or the caller, for a staging tree whose owners the image builder maps' -r -f -a "root\t'Root (0:0)'
current\t'The caller'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l api-url -d 'URL of the admin API; https, or plain http to a loopback address' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l ca-file -d 'PEM file with CA certificates, in addition to the built-in roots' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l proxy -d 'HTTP proxy that tunnels connections to the API (CONNECT). Other proxy variables are ignored' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l admin-email -d 'E-mail of the admin; required unless --admin-token-file is given' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l admin-password-file -d 'File with the admin\'s password. Default: AZAION_ADMIN_PASSWORD, or a prompt on the terminal' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l admin-token-file -d 'File with an access token of an admin, instead of a login' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l deadline -d 'Time limit in seconds for all API calls for one device and the waits between them [default: 30; in a batch 300, because the API may ask a host to wait]. Copies, checks and the password prompt do not count' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l dry-run -d 'Print what would be done, without writing files or calling the API'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l replace -d 'Replace another device\'s device.conf in the target'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l verify -d 'Log in as the device afterwards and validate the token as the device will'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l json -d 'Print one JSON object per line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -s v -l verbose -d 'Increase verbosity on standard error (repeatable)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l no-strict-modes -d 'As root, also accept paths that users other than root and the sudo user can change'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -l json -d 'Print one JSON object per line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -s v -l verbose -d 'Increase verbosity on standard error (repeatable)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -l no-strict-modes -d 'As root, also accept paths that users other than root and the sudo user can change'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -l if-serial -d 'Clear only the file of this device; fail for another device\'s file and keep it' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -l json -d 'Print one JSON object per line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -s v -l verbose -d 'Increase verbosity on standard error (repeatable)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -l no-strict-modes -d 'As root, also accept paths that users other than root and the sudo user can change'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -s h -l help -d 'Print help'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l rootfs -d 'Root file system to check (repeatable)' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l owner -d 'Owner of the files written into a directory: root (needs root), or the caller, for a staging tree whose owners the image builder maps' -r -f -a "root\t'Root (0:0)'
current\t'The caller'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l api-url -d 'URL of the admin API; https, or plain http to a loopback address' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l ca-file -d 'PEM file with CA certificates, in addition to the built-in roots' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l proxy -d 'HTTP proxy that tunnels connections to the API (CONNECT). Other proxy variables are ignored' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l admin-email -d 'E-mail of the admin; required unless --admin-token-file is given' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l admin-password-file -d 'File with the admin\'s password. Default: AZAION_ADMIN_PASSWORD, or a prompt on the terminal' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l admin-token-file -d 'File with an access token of an admin, instead of a login' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l deadline -d 'Time limit in seconds for all API calls for one device and the waits between them [default: 30; in a batch 300, because the API may ask a host to wait]. Copies, checks and the password prompt do not count' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l json -d 'Print one JSON object per line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -s v -l verbose -d 'Increase verbosity on standard error (repeatable)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l no-strict-modes -d 'As root, also accept paths that users other than root and the sudo user can change'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand explain" -l json -d 'Print one JSON object per line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand explain" -s v -l verbose -d 'Increase verbosity on standard error (repeatable)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand explain" -l no-strict-modes -d 'As root, also accept paths that users other than root and the sudo user can change'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand explain" -s h -l help -d 'Print help'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check explain help" -f -a "device" -d 'Create the device\'s account and write device.conf into its targets; safe to repeat'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check explain help" -f -a "batch" -d 'Provision a list of devices, each with its own targets; when repeated, it does the remaining devices'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check explain help" -f -a "inspect" -d 'Print the content of targets: serial, e-mail, API, time, mode, owner, last states of the agent; never the password'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check explain help" -f -a "clear" -d 'Remove device.conf from targets, after flashing'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check explain help" -f -a "check" -d 'Check the prerequisites: privileges, targets, API, admin login'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check explain help" -f -a "explain" -d 'Explain a failure: its cause, and what to do; without ID, list all'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check explain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
