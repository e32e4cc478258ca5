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

complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -l json -d 'One JSON object a line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -s v -l verbose -d 'More words on standard error; twice for even more'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -l no-strict-modes -d 'As root, use paths that others than root and the user who called sudo can change, too'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -s h -l help -d 'Print help'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -s V -l version -d 'Print version'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "device" -d 'Make the device\'s user and write device.conf into the target; safe to run again'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "batch" -d 'The same for a list of devices, each with a target of its own; run again, it does what is left'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "inspect" -d 'Say what is in a target: serial, e-mail, API, when, mode, owner, the last states of a device; never the password'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "clear" -d 'Take device.conf out of a target again, after flashing'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "check" -d 'Say whether all is in place: privileges, target, API, admin login'
complete -c azaion-provision -n "__fish_azaion_provision_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l rootfs -d 'Root file system to write into; more than once for A/B layouts' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l module-serial -d 'The module that the device is for, by what is in /proc/device-tree/serial-number there; on another one the agent does not use the credentials. Without it, what the target says already stays' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l on-existing -d 'What to do if the user exists and its password is not known here' -r -f -a "update\t'Set a new password; a unit flashed earlier with this serial can no longer log in'
refuse\t'Change nothing and fail'
recreate\t'Delete the user and make it again, with another id, where a password can\'t be set; never one whose password in the target works'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l owner -d 'Who owns what is written into a directory: root (needs root), or the caller, for a staging tree whose owners the image builder maps' -r -f -a "root\t'Root, by number'
current\t'The caller'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l api-url -d 'The admin API; https, or plain http to a loopback address' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l ca-file -d 'PEM file with CA certificates, added to the usual roots' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l proxy -d 'HTTP proxy that connections to the API are tunnelled through (CONNECT). No other variable about proxies is obeyed' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l admin-email -d 'The admin\'s e-mail; needed unless --admin-token-file is given' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l admin-password-file -d 'File with the admin\'s password; else AZAION_ADMIN_PASSWORD; else it is asked for on a terminal' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l admin-token-file -d 'File with an admin\'s access token, instead of a login' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l deadline -d 'Seconds for all calls to the API for one device and the waits between them [default: 30; in a batch 300, for the API may ask a host to wait]. Copies, checks and a password that is typed do not count' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l server-assigned -d 'Take an identity that the server makes (POST /devices) instead of one that follows from a serial. A target that holds an identity whose password works keeps it'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l replace -d 'Replace another device\'s file in the target'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l verify -d 'Log in as the device afterwards and judge the token as the device will'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l json -d 'One JSON object a line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -s v -l verbose -d 'More words on standard error; twice for even more'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -l no-strict-modes -d 'As root, use paths that others than root and the user who called sudo can change, too'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand device" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l rootfs -d 'Root file system of a unit, with {serial} where its serial stands in the path; more than once for A/B layouts' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l base -d 'What a root file system that is missing is copied from: a directory, an image or an archive' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l jobs -d 'Units that are worked on at the same time' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l report -d 'Write what became of each unit into this file, which must end in .csv or .jsonl' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l on-existing -d 'What to do if the user exists and its password is not known here' -r -f -a "update\t'Set a new password; a unit flashed earlier with this serial can no longer log in'
refuse\t'Change nothing and fail'
recreate\t'Delete the user and make it again, with another id, where a password can\'t be set; never one whose password in the target works'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l owner -d 'Who owns what is written into a directory: root (needs root), or the caller, for a staging tree whose owners the image builder maps' -r -f -a "root\t'Root, by number'
current\t'The caller'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l api-url -d 'The admin API; https, or plain http to a loopback address' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l ca-file -d 'PEM file with CA certificates, added to the usual roots' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l proxy -d 'HTTP proxy that connections to the API are tunnelled through (CONNECT). No other variable about proxies is obeyed' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l admin-email -d 'The admin\'s e-mail; needed unless --admin-token-file is given' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l admin-password-file -d 'File with the admin\'s password; else AZAION_ADMIN_PASSWORD; else it is asked for on a terminal' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l admin-token-file -d 'File with an admin\'s access token, instead of a login' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l deadline -d 'Seconds for all calls to the API for one device and the waits between them [default: 30; in a batch 300, for the API may ask a host to wait]. Copies, checks and a password that is typed do not count' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l dry-run -d 'Say what would be done, without a write or a call'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l replace -d 'Replace another device\'s file in the target'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l verify -d 'Log in as the device afterwards and judge the token as the device will'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l json -d 'One JSON object a line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -s v -l verbose -d 'More words on standard error; twice for even more'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -l no-strict-modes -d 'As root, use paths that others than root and the user who called sudo can change, too'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand batch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -l json -d 'One JSON object a line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -s v -l verbose -d 'More words on standard error; twice for even more'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -l no-strict-modes -d 'As root, use paths that others than root and the user who called sudo can change, too'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -l if-serial -d 'Clear only what is this device\'s; another one\'s file is left alone' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -l json -d 'One JSON object a line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -s v -l verbose -d 'More words on standard error; twice for even more'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -l no-strict-modes -d 'As root, use paths that others than root and the user who called sudo can change, too'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand clear" -s h -l help -d 'Print help'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l rootfs -d 'Root file system to check; may be given more than once' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l owner -d 'Who owns what is written into a directory: root (needs root), or the caller, for a staging tree whose owners the image builder maps' -r -f -a "root\t'Root, by number'
current\t'The caller'"
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l api-url -d 'The admin API; https, or plain http to a loopback address' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l ca-file -d 'PEM file with CA certificates, added to the usual roots' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l proxy -d 'HTTP proxy that connections to the API are tunnelled through (CONNECT). No other variable about proxies is obeyed' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l admin-email -d 'The admin\'s e-mail; needed unless --admin-token-file is given' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l admin-password-file -d 'File with the admin\'s password; else AZAION_ADMIN_PASSWORD; else it is asked for on a terminal' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l admin-token-file -d 'File with an admin\'s access token, instead of a login' -r -F
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l deadline -d 'Seconds for all calls to the API for one device and the waits between them [default: 30; in a batch 300, for the API may ask a host to wait]. Copies, checks and a password that is typed do not count' -r
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l json -d 'One JSON object a line on standard output'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -s v -l verbose -d 'More words on standard error; twice for even more'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -l no-strict-modes -d 'As root, use paths that others than root and the user who called sudo can change, too'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check help" -f -a "device" -d 'Make the device\'s user and write device.conf into the target; safe to run again'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check help" -f -a "batch" -d 'The same for a list of devices, each with a target of its own; run again, it does what is left'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check help" -f -a "inspect" -d 'Say what is in a target: serial, e-mail, API, when, mode, owner, the last states of a device; never the password'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check help" -f -a "clear" -d 'Take device.conf out of a target again, after flashing'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check help" -f -a "check" -d 'Say whether all is in place: privileges, target, API, admin login'
complete -c azaion-provision -n "__fish_azaion_provision_using_subcommand help; and not __fish_seen_subcommand_from device batch inspect clear check help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
