# written by gridgate from the site's files
export X509_CERT_DIR=/etc/grid-security/certificates
{%- for ce in guests(feature="arc-ce") %}
{%- if loop.first %}
export GRID_CE={{ ce.fqdn | quoted }}
{%- endif %}
{%- endfor %}
{%- for se in guests(feature="xrootd-se") %}
{%- if loop.first %}
export GRID_SE='root://{{ se.fqdn }}:1094//data'
{%- endif %}
{%- endfor %}
