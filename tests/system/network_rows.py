# SPDX-License-Identifier: GPL-2.0-or-later
"""The description of networks, element by element: what becomes of each row at ruched and at Debian's libvirtd. Used by
virsh_network.py.

All elements and attributes that libvirt's published schema has are in a row; what ruched prints is valid by it.
"""
import os
import re
import subprocess
import xml.etree.ElementTree as ET

import libvirt

SCHEMAS = "/usr/share/libvirt/schemas"
RNG = "{http://relaxng.org/ns/structure/1.0}"
DNSMASQ = "http://libvirt.org/schemas/network/dnsmasq/1.0"

IP, IP6 = "<ip address='192.168.7.1' prefix='24'>{}</ip>", "<ip family='ipv6' address='fd00:7::1' prefix='64'>{}</ip>"
NAT = "<forward mode='nat'/>" + IP.format("")
MACVTAP = "<forward mode='passthrough'><interface dev='up0'/></forward>"
OVS = "<forward mode='bridge'/><bridge name='obr0'/><virtualport type='openvswitch'/>"
BRIDGE = "<forward mode='bridge'/><bridge name='br0'/>"
ADDRESS = "<address type='pci' domain='0x0000' bus='0x05' slot='0x10' function='0x{}'/>"


def dhcp(inside, more=""):
    return f"<ip address='192.168.7.1' prefix='24'>{more}<dhcp>{inside}</dhcp></ip>"


def dhcp6(inside):
    return IP6.format(f"<dhcp>{inside}</dhcp>")


def dns(inside):
    return f"<dns>{inside}</dns>"


def forward(mode, inside):
    return f"<forward mode='{mode}'>{inside}</forward>"


def port(kind, parameters):
    return f"<virtualport type='{kind}'><parameters {parameters}/></virtualport>"


# A row: what stands in <network> (its own attributes before '|'); what of it ruched must print ('-': must not; '!': it refuses, and
# says so); how the peer (libvirt 9.0.0) differs, which else must say the same, or refuse as well: it takes what ours refuses, and
# ignores it or fails when the network starts; it wants devices and names that are not here, or not what ours can do; it loses a
# <bootp> beside which there is no address to give.
LOOSER, STRICTER, FORGETS = "looser", "stricter", "forgets"
UUIDS = "instanceid='11111111-2222-4333-8444-555555555555'", "interfaceid='11111111-2222-4333-8444-555555555555'"
RANGE = "<range start='192.168.7.2' end='192.168.7.9'/>"
ROWS = (
    # the whole
    ("", "<name>n</name>"), ("ipv6='yes'|", "ipv6='yes'"), ("ipv6='no'|", ""), ("ipv6='maybe'|", "!maybe"), ("connections='3'|", "-<network connections"),
    ("trustGuestRxFilters='yes'|" + MACVTAP, "!trustGuestRxFilters='yes'", LOOSER), ("trustGuestRxFilters='yes'|" + BRIDGE, "trustGuestRxFilters='yes'"), ("trustGuestRxFilters='no'|", "trustGuestRxFilters='no'"),
    ("trustGuestRxFilters='si'|", "!si"), ("<metadata><a:b xmlns:a='urn:a' c='d'>x</a:b></metadata>", "c='d'>x</a:b>"),
    ("<uuid>x</uuid>", "!x"), ("<uuid>8f0f8a9e-6a2c-4d4f-8c0e-0123456789ab</uuid>", "8f0f8a9e"),
    # bridge, mtu, mac
    ("<bridge name='b0' zone='home' stp='off' delay='7'/>", "zone='home' stp='off' delay='7'"), ("<bridge stp='maybe'/>", "!maybe", LOOSER), ("<bridge delay='x'/>", "!x"),
    ("<bridge zone='a b'/>", "!a b", LOOSER), ("<bridge macTableManager='libvirt'/>", "macTableManager='libvirt'"), ("<bridge macTableManager='kernel'/>", "macTableManager='kernel'"),
    ("<bridge macTableManager='nobody'/>", "!nobody"), ("<bridge name='sixteen-letters-'/>", "!16 bytes", LOOSER),
    ("<bridge name='virbr%d'/>", "virbr"), ("<mtu size='9000'/>", "<mtu size='9000'/>"), ("<mtu size='67'/>", "!67", LOOSER), ("<mtu size='65536'/>", "!65536", LOOSER),
    ("<mac address='52:54:00:AA:00:01'/>", "52:54:00:aa:00:01"), ("<mac address='01:54:00:00:00:01'/>", "!01:54"), ("<mac address='x'/>", "!x"),
    (BRIDGE + "<mac address='52:54:00:00:00:01'/>", "!<mac>"), (BRIDGE + "<mtu size='1400'/>", "<mtu size='1400'/>", STRICTER), (MACVTAP + "<mtu size='1400'/>", "!mtu"),
    # forward
    ("<forward/>" + IP.format(""), "<forward mode='nat'>"), ("<forward mode='route'/>" + IP.format(""), "<forward mode='route'/>"),
    ("<forward mode='open'/>" + IP.format(""), "<forward mode='open'/>"), (NAT, "<port start='1024' end='65535'/>"), ("<forward mode='none'/>", "!none", LOOSER),
    ("<forward mode='nat'/>", "!<ip>"), ("<forward mode='nat' dev='up0'/>" + IP.format(""), "<forward dev='up0' mode='nat'>|<interface dev='up0'/>"),
    (forward("nat", "<interface dev='up0'/><interface dev='up1'/>") + IP.format(""), "!one <interface>"), ("<forward mode='open' dev='up0'/>" + IP.format(""), "!dev"),
    (forward("nat", "<interface dev='up0' connections='3'/>") + IP.format(""), "-<interface dev='up0' connections"),
    (BRIDGE, "<bridge name='br0'/>"), (forward("bridge", "<interface dev='up0'/>"), "<interface dev='up0'/>"), (forward("private", "<interface dev='up0'/>"), "private"),
    (forward("vepa", "<interface dev='up0'/><interface dev='up1'/>"), "vepa|up1"), (MACVTAP, "passthrough"), (forward("passthrough", "<pf dev='up0'/>"), "<pf dev='up0'/>"),
    (forward("vepa", "<interface dev='up0'/><interface dev='up0'/>"), "!twice"), (forward("vepa", "") + "<bridge name='br0'/>", "!bridge"),
    (forward("bridge", "<interface dev='up0'/>") + "<bridge name='br0'/>", "!not both"), (BRIDGE.replace("/>", " dev='up0'/>", 1), "!not both"),
    (forward("vepa", "<interface dev='up0'/><pf dev='up1'/>"), "!pf", LOOSER), (forward("passthrough", "<pf dev='a'/><pf dev='b'/>"), "!pf"),
    (forward("hostdev", ADDRESS.format(1) + ADDRESS.format(2)), "function='0x1'/>|function='0x2'/>", STRICTER), (forward("hostdev", "<pf dev='up0'/>"), "<pf dev='up0'/>"),
    (forward("hostdev", ADDRESS.format(1).replace("/>", " connections='2'/>")), "-function='0x1' connections", STRICTER),
    ("<forward mode='hostdev' managed='yes'><driver name='vfio'/><pf dev='up0'/></forward>", "managed='yes'|<driver name='vfio'/>"),
    ("<forward mode='hostdev' managed='yes'><driver name='kvm'/><pf dev='up0'/></forward>", "<driver name='kvm'/>"), ("<forward mode='hostdev' managed='x'/>", "!x", LOOSER),
    (forward("hostdev", "<driver name='x'/><pf dev='up0'/>"), "!x"), (forward("hostdev", "<pf dev='up0'/>" + ADDRESS.format(1)), "!pf"),
    (forward("hostdev", "<address type='pci' bus='0x05' slot='0x20' function='0x1'/>"), "!0x20"), (forward("hostdev", "<address type='usb' bus='1'/>"), "!usb"),
    (forward("vepa", ADDRESS.format(1)), "!hostdev"), (forward("nat", ADDRESS.format(1)) + IP.format(""), "!hostdev"), (forward("hostdev", "<interface dev='up0'/>"), "!interface"),
    (forward("nat", "<nat><address start='198.51.100.2' end='198.51.100.4'/><port start='500' end='1000'/></nat>") + IP.format(""), "end='198.51.100.4'/>|<port start='500' end='1000'/>"),
    (forward("nat", "<nat ipv6='yes'/>") + IP.format("") + IP6.format(""), "<nat ipv6='yes'>"), (forward("nat", "<nat ipv6='x'/>") + IP.format(""), "!x"),
    (forward("nat", "<nat><address start='198.51.100.4' end='198.51.100.2'/></nat>") + IP.format(""), "!before"), (forward("nat", "<nat><address start='x' end='y'/></nat>") + IP.format(""), "!x"),
    (forward("nat", "<nat><address start='1.2.3.4'/></nat>") + IP.format(""), "!end"), (forward("nat", "<nat><port start='1000' end='500'/></nat>") + IP.format(""), "!before"),
    (forward("nat", "<nat><port start='0' end='70000'/></nat>") + IP.format(""), "!0"), (forward("nat", "<nat/><nat/>") + IP.format(""), "!nat"),
    (forward("route", "<nat ipv6='yes'/>") + IP.format(""), "!nat"),
    # domain and names
    ("<domain name='lab.test' localOnly='yes'/>", "<domain name='lab.test' localOnly='yes'/>"), ("<domain name='lab.test' localOnly='no'/>", "localOnly='no'"), ("<domain/>", "!name", LOOSER),
    ("<domain name='lab.test' localOnly='x'/>", "!x"), ("<domain name='lab.test' register='yes'/>", "!register", LOOSER), (BRIDGE + "<domain name='x'/>", "!<domain>"),
    ("<dns enable='no'/>", "<dns enable='no'/>"), ("<dns enable='yes'/>", "<dns enable='yes'/>"), ("<dns enable='x'/>", "!x"), ("<dns forwardPlainNames='no'/>", "forwardPlainNames='no'"),
    ("<dns forwardPlainNames='yes'/>", "forwardPlainNames='yes'"), ("<dns forwardPlainNames='x'/>", "!x"), (BRIDGE + dns("<txt name='a' value='b'/>"), "!<dns>"),
    (dns("<forwarder addr='8.8.8.8'/><forwarder domain='x.test' addr='fd00::1'/><forwarder domain='y.test'/>"), "addr='8.8.8.8'|domain='x.test'|<forwarder domain='y.test'/>"),
    (dns("<forwarder/>"), "!forwarder"), (dns("<forwarder addr='x'/>"), "!x"),
    (dns("<txt name='a' value='b c, d'/>"), "<txt name='a' value='b c, d'/>"), (dns("<txt name='a'/>"), "!value"), (dns("<txt value='a'/>"), "!name"), (dns("<txt name='a b' value='c'/>"), "!a b"),
    (dns("<txt name='a' value='&quot;'/>"), "!value", LOOSER),
    (dns("<srv service='ldap' protocol='tcp' domain='x.test' target='a.test' port='389' priority='1' weight='2'/>"), "target='a.test' port='389' priority='1' weight='2'/>"),
    (dns("<srv service='ldap' protocol='udp'/>"), "<srv service='ldap' protocol='udp'/>"), (dns("<srv service='ldap' protocol='sctp'/>"), "!sctp", LOOSER), (dns("<srv protocol='udp'/>"), "!service"),
    (dns("<srv service='ldap'/>"), "!protocol"), (dns("<srv service='l' protocol='tcp' target='a' port='70000'/>"), "!70000"), (dns("<srv service='l' protocol='tcp' port='7'/>"), "!target"),
    (dns("<srv service='l' protocol='tcp' priority='7'/>"), "!target"), (dns("<srv service='l' protocol='tcp' target='a' port='0'/>"), "!0"),
    (dns("<srv service='l' protocol='tcp' target='a' weight='70000'/>"), "!70000"), (dns("<srv service='a/b' protocol='tcp'/>"), "!a/b", LOOSER),
    (dns("<host ip='192.168.7.5'><hostname>a</hostname><hostname>b.test</hostname></host>"), "<hostname>a</hostname>|<hostname>b.test</hostname>"), (dns("<host ip='192.168.7.5'/>"), "!hostname"),
    (dns("<host><hostname>a</hostname></host>"), "!ip"), (dns("<host ip='x'><hostname>a</hostname></host>"), "!x"), (dns("<host ip='1.2.3.4'><hostname/></host>"), "!hostname"),
    (dns("<host ip='1.2.3.4'><hostname>a</hostname></host>" * 2), "!two dns/host", LOOSER),
    # vlan, bandwidth, port, virtualport, portgroup
    (OVS, "<virtualport type='openvswitch'/>"), (OVS + "<vlan><tag id='42'/></vlan>", "<tag id='42'/>"),
    (OVS + "<vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='47'/></vlan>", "<vlan trunk='yes'>|nativeMode='untagged'/>"),
    (OVS + "<vlan><tag id='1' nativeMode='tagged'/></vlan>", "<tag id='1' nativeMode='tagged'/>"), (OVS + "<vlan><tag id='4096'/></vlan>", "!4096"), (OVS + "<vlan><tag/></vlan>", "!id"), (OVS + "<vlan trunk='yes'/>", "!<tag>"),
    (OVS + "<vlan><tag id='1'/><tag id='2'/></vlan>", "<vlan trunk='yes'>"), (OVS + "<vlan trunk='no'><tag id='1'/><tag id='2'/></vlan>", "!trunk"),
    (OVS + "<vlan trunk='yes'><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/></vlan>", "!native"),
    (NAT + "<vlan><tag id='42'/></vlan>", "!vlan"), (BRIDGE + "<vlan><tag id='42'/></vlan>", "!vlan"), (MACVTAP + "<vlan><tag id='42'/></vlan>", "<tag id='42'/>"),
    (forward("hostdev", "<pf dev='up0'/>") + "<vlan><tag id='42'/></vlan>", "<tag id='42'/>"), (forward("hostdev", "<pf dev='up0'/>") + "<vlan trunk='yes'><tag id='1'/><tag id='2'/></vlan>", "!trunk", LOOSER),
    (NAT + "<bandwidth><inbound average='1000' peak='5000' burst='1024'/><outbound average='128' peak='256' burst='256'/></bandwidth>", "peak='5000' burst='1024'/>|<outbound average='128'"),
    (NAT + "<bandwidth><inbound average='1000' floor='200'/></bandwidth>", "!floor"), (NAT + "<bandwidth><inbound peak='1000'/></bandwidth>", "!average"), (NAT + "<bandwidth><inbound average='0'/></bandwidth>", "!0", LOOSER),
    (NAT + "<bandwidth><inbound average='1000' peak='10'/></bandwidth>", "!peak", LOOSER), (NAT + "<bandwidth><inbound average='x'/></bandwidth>", "!x"),
    (NAT + "<bandwidth classID='3'><inbound average='1000'/></bandwidth>", "!classID='3'"), (NAT + "<bandwidth><inbound average='1'/><inbound average='2'/></bandwidth>", "!inbound"),
    (forward("hostdev", "<pf dev='up0'/>") + "<bandwidth><inbound average='1000'/></bandwidth>", "!bandwidth"),
    ("<port isolated='yes'/>", "<port isolated='yes'/>"), ("<port isolated='no'/>", "<port isolated='no'/>"), ("<port isolated='x'/>", "!x"), (MACVTAP + "<port isolated='yes'/>", "!isolated", LOOSER),
    (BRIDGE + port("openvswitch", "profileid='menial' " + UUIDS[1]), "profileid='menial'|interfaceid='11111111-2222-4333-8444-555555555555'"), (BRIDGE + port("openvswitch", "interfaceid='x'"), "!x"),
    (OVS.replace("type='openvswitch'", "type='nothing'"), "!nothing"), (BRIDGE + port("openvswitch", f"profileid='{'x' * 40}'"), "!39"),
    (BRIDGE + port("midonet", UUIDS[1]), "!midonet", LOOSER), (MACVTAP + port("802.1Qbg", "managerid='11' typeid='1193047' typeidversion='2' " + UUIDS[0]), "!802.1Qbg", LOOSER),
    (MACVTAP + port("802.1Qbh", "profileid='finance'"), "!802.1Qbh", LOOSER), (NAT + "<virtualport type='openvswitch'/>", "!virtualport", LOOSER),
    (OVS + "<portgroup name='a' default='yes' trustGuestRxFilters='yes'><vlan><tag id='9'/></vlan><virtualport><parameters profileid='p'/></virtualport></portgroup><portgroup name='b' default='no'/>",
     "<portgroup name='a' default='yes'|<parameters profileid='p'/>|<portgroup name='b'", STRICTER),
    (OVS + f"<portgroup name='a'><vlan trunk='yes'><tag id='1' nativeMode='tagged'/><tag id='2'/></vlan><virtualport type='openvswitch'><parameters {UUIDS[1]} profileid='p'/>"
     "</virtualport><bandwidth><inbound average='10' peak='20' burst='30'/><outbound average='10' peak='20' burst='30'/></bandwidth></portgroup>", "<outbound average='10' peak='20' burst='30'/>|nativeMode='tagged'|profileid='p'", STRICTER),
    (OVS + f"<portgroup name='a'><virtualport><parameters managerid='1' typeid='2' typeidversion='3' {UUIDS[0]}/></virtualport></portgroup>", "!managerid", LOOSER),
    (OVS + "<portgroup name='a'><bandwidth classID='3'><inbound average='10'/></bandwidth></portgroup>", "!classID='3'"), (OVS + "<portgroup name='a'><bandwidth><inbound average='10' floor='5'/></bandwidth></portgroup>", "!floor", LOOSER),
    (OVS + "<portgroup name='a'><bandwidth><outbound average='10' floor='5'/></bandwidth></portgroup>", "!floor", LOOSER), (NAT + "<bandwidth><outbound average='10' floor='5'/></bandwidth>", "!floor", LOOSER),
    (forward("hostdev", ADDRESS.format(1).replace("/>", " multifunction='on'/>")), "multifunction='on'", STRICTER),
    (NAT + "<portgroup name='a'><bandwidth><inbound average='10'/></bandwidth></portgroup>", "<inbound average='10'/>"), ("<portgroup/>", "!name"), ("<portgroup name='a' default='x'/>", "!x", LOOSER),
    ("<portgroup name='a'/><portgroup name='a'/>", "!twice"), ("<portgroup name='a' default='yes'/><portgroup name='b' default='yes'/>", "!default"), (NAT + "<portgroup name='a'><vlan><tag id='1'/></vlan></portgroup>", "!vlan"),
    (NAT + "<portgroup name='a'><virtualport type='openvswitch'/></portgroup>", "!virtualport", LOOSER), (forward("hostdev", "<pf dev='up0'/>") + "<portgroup name='a'><bandwidth><inbound average='10'/></bandwidth></portgroup>", "!bandwidth"),
    # ip, tftp, dhcp
    (IP.format(""), "<ip address='192.168.7.1' prefix='24'"), ("<ip address='192.168.7.1' netmask='255.255.255.0'/>", "netmask='255.255.255.0'"), ("<ip family='ipv4' address='10.7.0.1'/>", "<ip family='ipv4' address='10.7.0.1'"),
    (IP6.format(""), "<ip family='ipv6' address='fd00:7::1' prefix='64'"), ("<ip family='ipv6' address='10.0.0.1'/>", "!10.0.0.1"), ("<ip address='192.168.7.1' netmask='255.255.255.0' prefix='24'/>", "!both"),
    ("<ip address='192.168.7.1' prefix='33'/>", "!33"), ("<ip address='192.168.7.1' netmask='255.0.255.0'/>", "!255.0.255.0", LOOSER), ("<ip family='x' address='1.2.3.4'/>", "!x"), ("<ip/>", "!address"), ("<ip prefix='24'/>", "!address"),
    ("<ip address='192.168.7.1' prefix='24' localPtr='yes'/>", "localPtr='yes'"), ("<ip address='192.168.7.1' prefix='24' localPtr='no'/>", "localPtr='no'"), ("<ip address='192.168.7.1' prefix='25' localPtr='yes'/>", "!localPtr", LOOSER),
    ("<ip address='192.168.7.1' prefix='24' localPtr='x'/>", "!x"), (MACVTAP + IP.format(""), "!<ip>"), (IP.format("<tftp root='/srv/tftp'/>"), "<tftp root='/srv/tftp'/>"), (IP.format("<tftp root='srv'/>"), "!srv", LOOSER),
    (IP6.format("<tftp root='/srv'/>"), "!tftp"), (dhcp(RANGE), RANGE), (dhcp("<range start='192.168.7.2' end='192.168.7.9'><lease expiry='1' unit='hours'/></range>"), "<lease expiry='1' unit='hours'/>"),
    (dhcp("<range start='192.168.7.2' end='192.168.7.9'><lease expiry='60'/></range>"), "<lease expiry='60' unit='minutes'/>"), (dhcp("<range start='192.168.7.2' end='192.168.7.9'><lease expiry='3600' unit='seconds'/></range>"), "unit='seconds'"),
    (dhcp("<range start='192.168.7.2' end='192.168.7.9'><lease expiry='0'/></range>"), "<lease expiry='0'"), (dhcp("<range start='192.168.7.2' end='192.168.7.9'><lease expiry='1'/></range>"), "!2 minutes"),
    (dhcp("<range start='192.168.7.2' end='192.168.7.9'><lease expiry='1' unit='weeks'/></range>"), "!weeks"), (dhcp("<range start='192.168.7.2' end='192.168.7.9'><lease/></range>"), "!expiry", LOOSER), (dhcp("<range start='192.168.7.2'/>"), "!end"), (dhcp("<range end='192.168.7.2'/>"), "!start"),
    (dhcp("<range start='192.168.7.9' end='192.168.7.2'/>"), "!before"), (dhcp("<range start='192.168.8.2' end='192.168.8.9'/>"), "!192.168.8.2"), (dhcp("<range start='192.168.7.0' end='192.168.7.9'/>"), "!network address"),
    (dhcp(RANGE * 2), "!overlaps", LOOSER), (dhcp("<host mac='52:54:00:00:00:01' name='a' ip='192.168.7.5'/>"), "<host mac='52:54:00:00:00:01' name='a' ip='192.168.7.5'/>"),
    (dhcp("<host mac='52:54:00:00:00:01' ip='192.168.7.5'><lease expiry='10' unit='minutes'/></host>"), "<lease expiry='10' unit='minutes'/>"), (dhcp("<host name='a' ip='192.168.7.5'/>"), "<host name='a' ip='192.168.7.5'/>"), (dhcp("<host ip='192.168.7.5'/>"), "!neither"),
    (dhcp("<host mac='52:54:00:00:00:01'/>"), "!ip"), (dhcp("<host mac='01:54:00:00:00:01' ip='192.168.7.5'/>"), "!01:54"), (dhcp("<host mac='52:54:00:00:00:01' ip='192.168.8.5'/>"), "!192.168.8.5", LOOSER), (dhcp("<host mac='52:54:00:00:00:01' name='1a b' ip='192.168.7.5'/>"), "!1a b", LOOSER),
    (dhcp("<host id='0:1' ip='192.168.7.5'/>"), "!DHCPv6"), (dhcp6("<host id='0:3:0:1:0:16:3e:11:22:33' name='six' ip='fd00:7::5'/>"), "id='0:3:0:1:0:16:3e:11:22:33'"), (dhcp6("<host name='six' ip='fd00:7::5'/>"), "<host name='six' ip='fd00:7::5'/>"), (dhcp6("<host mac='52:54:00:00:00:01' ip='fd00:7::5'/>"), "!DHCPv6"),
    (dhcp6("<range start='fd00:7::10' end='fd00:7::1f'/>"), "<range start='fd00:7::10'"), (dhcp6("<bootp file='x'/>"), "!bootp", LOOSER), (dhcp(RANGE) + IP.replace(".7.", ".8.").format("<dhcp><range start='192.168.8.2' end='192.168.8.9'/></dhcp>"), "!one can"),
    (dhcp("<bootp file='pxelinux.0'/>", "<tftp root='/srv'/>"), "<bootp file='pxelinux.0'/>", FORGETS), (dhcp("<bootp file='pxe' server='192.168.7.3'/>"), "server='192.168.7.3'", FORGETS), (dhcp("<bootp file='pxe' server='boot.test'/>"), "server='boot.test'", STRICTER), (dhcp("<bootp/>"), "!file", LOOSER),
    # route
    (IP.format("") + "<route address='10.0.0.0' prefix='8' gateway='192.168.7.2' metric='2'/>", "<route address='10.0.0.0' prefix='8' gateway='192.168.7.2' metric='2'/>"),
    (IP.format("") + "<route family='ipv4' address='10.0.0.0' netmask='255.0.0.0' gateway='192.168.7.2'/>", "netmask='255.0.0.0'"), (IP6.format("") + "<route family='ipv6' address='fd00:8::' prefix='64' gateway='fd00:7::2'/>", "address='fd00:8::'"),
    (IP.format("") + "<route address='10.0.0.0' prefix='8' gateway='192.168.7.2' metric='0'/>", "!0"), (IP.format("") + "<route address='10.0.0.0' prefix='8'/>", "!gateway"), (IP.format("") + "<route address='10.0.0.0' prefix='8' gateway='fd00::1'/>", "!fd00::1"),
    (IP.format("") + "<route address='10.0.0.1' prefix='8' gateway='192.168.7.2'/>", "!10.0.0.1"), (IP.format("") + "<route address='10.0.0.0' prefix='8' gateway='10.0.0.1'/>", "!10.0.0.1"), (IP.format("") + "<route address='10.0.0.0' prefix='8' netmask='255.0.0.0' gateway='192.168.7.2'/>", "!both"),
    (BRIDGE + "<route address='10.0.0.0' prefix='8' gateway='192.168.7.2'/>", "!<route>"), (IP.format("") + "<route gateway='192.168.7.2'/>", "!address"),
    # dnsmasq's own words
    (f"xmlns:dnsmasq='{DNSMASQ}'|<dnsmasq:options><dnsmasq:option value='foo=bar'/><dnsmasq:option value='cname=a,b'/></dnsmasq:options>", "<dnsmasq:option value='foo=bar'/>|<dnsmasq:option value='cname=a,b'/>"),
    (f"xmlns:dnsmasq='{DNSMASQ}'|<dnsmasq:options><dnsmasq:option/></dnsmasq:options>", "!value"), (f"xmlns:d='{DNSMASQ}'|<d:options><d:option value='foo'/></d:options>", "option value='foo'/>"),
)


# ---- the peer ----

def whole(row):
    attributes, _, inside = row[0].rpartition("|")
    return f"<network {attributes}><name>n</name>{inside}</network>"


def define(connection, row):
    """The text, or the refusal with '!' before it."""
    try:
        network = connection.networkDefineXML(whole(row))
    except libvirt.libvirtError as e:
        return f"!{e}"
    text = network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)
    network.undefine()
    return text


def form(text):
    """What it says, without what each side makes up (UUID, MAC address, the bridge's name) and the usual ports, which ours tells."""
    text = re.sub(r"\s*<port start='1024' end='65535'/>", "", text)

    def walk(e):
        attributes = {k: v for k, v in e.attrib.items() if (e.tag, k) not in (("bridge", "name"), ("mac", "address"))}
        return e.tag, sorted(attributes.items()), (e.text or "").strip(), [walk(c) for c in e if c.tag != "uuid" and (c.tag != "nat" or len(c) or c.attrib)]
    return walk(ET.fromstring(text))


def judge(row, ours, theirs):
    """A sentence, or None."""
    wanted = row[1]
    if wanted.startswith("!"):
        good = ours.startswith("!") and wanted[1:] in ours
    elif wanted.startswith("-"):
        good = not ours.startswith("!") and wanted[1:] not in ours
    else:
        good = not ours.startswith("!") and all(w in ours for w in wanted.split("|"))
    if not good:
        return f"not {wanted}: {ours}"
    if theirs is None or row[2:]:
        return None
    if theirs.startswith("!") != ours.startswith("!") or not ours.startswith("!") and form(ours) != form(theirs):
        return f"ours {ours}\nthe peer {theirs}"
    return None


# ---- the published schema ----

def named(node, schema, path, found, depth=0):
    """Elements and attributes that a rule can have, by their paths."""
    for part in node:
        kind = part.tag.removeprefix(RNG)
        if kind == "element":
            below = f"{path}/{part.get('name')}"
            found.add(below)
            named(part, schema, below, found, depth + 1)
        elif kind == "attribute":
            found.add(f"{path}@{part.get('name')}")
        elif kind == "ref":
            for rule in schema.get(part.get("name"), []):
                named(rule, schema, path, found, depth + 1)
        elif depth < 40:
            named(part, schema, path, found, depth + 1)


def published():
    schema = {}
    for file in ("network.rng", "networkcommon.rng", "basictypes.rng"):
        for rule in ET.parse(f"{SCHEMAS}/{file}").getroot().iter(f"{RNG}define"):
            schema.setdefault(rule.get("name"), []).append(rule)
    found = set()
    named(schema["network"][0], schema, "", found)
    return {p for p in found if "/metadata/" not in p and "/zpci" not in p}


def written():
    found = set()

    def walk(e, path):
        here = f"{path}/{e.tag.rpartition('}')[2]}"
        found.update({here}, (f"{here}@{name}" for name in e.attrib))
        for child in e:
            walk(child, here)
    for row in ROWS:
        walk(ET.fromstring(whole(row)), "")
    return found


def validate(texts, folder):
    """By one run of xmllint."""
    files = []
    for number, text in enumerate(texts):
        files.append(os.path.join(folder, f"row{number}.xml"))
        with open(files[-1], "w", encoding="utf-8") as f:
            f.write(text)
    done = subprocess.run(["xmllint", "--noout", "--relaxng", f"{SCHEMAS}/network.rng", *files], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if not line.endswith(" validates")]


def try_all(ours, peer, folder):
    """`ours`, `peer` (or None): URIs."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    sides = [libvirt.open(uri) if uri else None for uri in (ours, peer)]
    wrong, texts = [], []
    for row in ROWS:
        mine, theirs = (define(side, row) if side else None for side in sides)
        texts += [] if mine.startswith("!") else [mine]
        why = judge(row, mine, theirs)
        wrong += [f"{whole(row)}: {why}"] if why else []
    for side in filter(None, sides):
        side.close()
    assert not wrong, "\n".join(wrong)
    if os.path.exists(f"{SCHEMAS}/network.rng"):
        missing = published() - written()
        assert not missing, f"no row has {sorted(missing)}"
        invalid = validate(texts, folder)
        assert not invalid, "\n".join(invalid)
