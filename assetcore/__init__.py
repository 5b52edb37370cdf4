"""assetcore"""
