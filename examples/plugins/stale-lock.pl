#!/usr/bin/perl
# Called as: stale-lock.pl VERB, with JSON on standard input; answers with JSON on standard output.
use strict;
use warnings;
use Fcntl qw(O_WRONLY O_CREAT O_EXCL);
use JSON::PP;

my $told = decode_json(join '', <STDIN>);
my ($path, $pid) = @{ $told->{parameters} }{qw(path pid)};
my $ours = "$pid\n# $told->{mark}\n";    # the mark says whose it is, whatever happens to the journal

sub answer { print encode_json({@_}); exit 0 }

sub content {
    open my $file, '<', $path or return undef;
    local $/;
    return scalar <$file>;
}

my %verb = (
    check => sub {
        answer(refused => "$path is there already") if lstat $path;
        answer(prior => JSON::PP::null);
    },
    apply => sub {
        # Never over a file of somebody else, and never through a link.
        sysopen my $file, $path, O_WRONLY | O_CREAT | O_EXCL, 0644
            or answer(error => "$path: $!");
        print $file $ours;
        close $file or answer(error => "$path: $!");
        answer();
    },
    observe => sub {
        my $found   = content();
        my $present = !lstat $path ? 'absent' : ($found // '') eq $ours ? 'ours' : 'foreign';
        answer(
            present  => $present,
            effect   => $present eq 'ours' ? 'effective' : 'ineffective',
            asked    => "held by process $pid",
            measured => defined $found ? 'held by process ' . int($found) : 'free',
        );
    },
    undo => sub {
        answer(end => 'absent') unless lstat $path;
        # Killed while it was written, it holds the beginning of what we write.
        my $found = content() // '';
        answer(end => 'kept', detail => "$path belongs to somebody else now")
            unless $found eq substr $ours, 0, length $found;
        unlink $path or answer(end => 'failed', detail => "$path: $!");
        answer(end => 'undone', detail => "$path is removed");
    },
);
my $act = $verb{ $ARGV[0] // '' } or die "no such verb\n";
$act->();
